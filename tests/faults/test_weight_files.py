"""Weight files that are damaged, no weights, or no numbers to compute with: refused with what is wrong."""

import io
import os
import pickle
import zipfile

import pytest
import torch
import yaml
from safetensors.torch import save, save_file
from torch import nn

from kdrun import models
from kdrun.models.weight_files import file_digest, read_weights
from kdrun.models.weights import load_weights
from tests.cli.conftest import Desk
from tests.models.conftest import CONF

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    return net


def state(**changed):
    return {name: value.clone() for name, value in network().state_dict().items()} | changed


def legacy(content):
    made = io.BytesIO()
    torch.save(content, made, _use_new_zipfile_serialization=False)
    return made.getvalue()


def refusal(file, of=load_weights):
    with pytest.raises(ValueError) as error:
        of(network(), file) if of is load_weights else of(file)
    sentence = str(error.value)
    assert file.name in sentence and "\n" not in sentence and "\x1b" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"", "is empty; copy or download it again"),
        ("w.safetensors", POINTER.encode(), "is a Git LFS pointer, not the weights; fetch them with git lfs pull"),
        ("w.pt", POINTER.encode(), "is a Git LFS pointer"),
        ("w.pt", b"<!DOCTYPE html>\n<html>404</html>", "is text, not weights (it begins '<!DOCTYPE html>')"),
        ("w.safetensors", b'{"weight_map": {}}', "is text, not weights"),
        ("w.pt", b"\x89HDF\r\n\x1a\n" + bytes(50), "name a file of weights, preferably .safetensors"),
        ("w.safetensors", save(state())[:-3], "an incomplete safetensors file"),
        ("w.pt", bytes(1024), "a tar archive, as torch wrote until 2017"),  # torch would take it for an empty one
    ],
)
def test_what_is_no_weights_says_what_it_is(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    for read in (read_weights, file_digest):
        assert "is a folder; name the file of weights in it" in refusal(tmp_path / "folder.pt", read)
        assert "is not a regular file" in refusal(tmp_path / "pipe.pt", read)
        assert "there is no file" in refusal(tmp_path / "absent.pt", read)


def test_an_old_torch_file_that_ends_anywhere_is_refused_with_a_sentence(tmp_path):
    whole = legacy(state())
    for size in (*range(1, 120), *range(120, len(whole), 23), len(whole) - 1):
        (tmp_path / "w.pt").write_bytes(whole[:size])
        assert refusal(tmp_path / "w.pt").endswith((".safetensors", "copy or download it again"))


def test_an_archive_of_torch_whose_content_is_not_that_of_its_checksums_is_refused(tmp_path):
    file = tmp_path / "w.pt"
    torch.save(state(), file)
    whole = file.read_bytes()
    number = network().state_dict()["0.weight"].numpy().tobytes()
    assert whole.count(number) == 1
    file.write_bytes(whole.replace(number, bytes([number[0] ^ 1]) + number[1:]))
    assert torch.load(file, weights_only=True)  # torch itself would take it
    assert "an incomplete torch file (Bad CRC-32 for file 'w/data/" in refusal(file)


def test_an_archive_that_torch_wrote_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(state(), tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        assert {info.CRC for info in archive.infolist()} == {0}
    assert load_weights(network(), tmp_path / "w.pt") == ()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("0.weight", lambda w: w.index_fill(0, torch.tensor([1]), float("nan")), "contains nan in 3 of 12 places"),
        ("2.bias", lambda w: w / 0, "contains "),
        ("1.running_var", lambda w: w * float("inf"), "contains inf in 4 of 4 places"),
        ("0.weight", lambda w: w.double() * 1e300, "contains "),
        ("0.weight", lambda w: (100 * w).to(torch.int8), "is int8 in the file and float32 in the model"),
        ("0.weight", lambda w: w.to(torch.complex64), "is complex64 in the file and float32 in the model"),
        ("0.bias", lambda w: w > 0, "is bool in the file"),
        ("0.weight", lambda w: w.to_sparse(), "is sparse in the file"),
        ("0.weight", lambda w: w.to("meta"), "is without values in the file"),
        ("1.num_batches_tracked", lambda _: torch.tensor(2.5), "is float32 in the file and int64 in the model"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_does_not_hold_finite_real_numbers_is_refused_by_name(tmp_path, name, change, message):
    whole = state()
    torch.save(whole | {name: change(whole[name])}, tmp_path / "w.pt")
    answer = refusal(tmp_path / "w.pt")
    assert f"w.pt: {name} {message}" in answer and ("name another one" in answer or "save the state dict" in answer)


def test_other_precisions_whole_counters_and_infinite_masks_are_taken(tmp_path):
    whole = {name: value.half() if value.is_floating_point() else value.float() for name, value in state().items()}
    torch.save(whole, tmp_path / "half.pt")
    net = network()
    assert load_weights(net, tmp_path / "half.pt") == ()
    assert net[0].weight.dtype == torch.float32 and net.mask[1] == float("-inf")


class Runs:
    """A pickle that touches a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_nothing_runs_while_a_hostile_file_is_refused(tmp_path):
    ran, files = tmp_path / "ran", [tmp_path / f"{i}.pt" for i in range(3)]
    torch.save({"a": Runs(ran)}, files[0])
    files[1].write_bytes(pickle.dumps(Runs(ran)))
    files[2].write_bytes(legacy({"a": Runs(ran)}))
    for file in files:
        assert "refused: it contains posix.system besides tensors" in refusal(file)
    assert not ran.exists()


def test_a_teacher_that_cannot_be_computed_with_is_refused_before_a_student_trains(tmp_path):
    desk = Desk(tmp_path)
    settings = yaml.safe_load((CONF / "mlp.yaml").read_text()) | {"hidden": [5]}
    weights = models.build(**settings, num_classes=10, in_channels=1, image_size=(8, 8), seed=7).state_dict()
    first = weights["layers.0.weight"].clone()
    first[0, 0] = float("nan")
    save_file(weights | {"layers.0.weight": first}, tmp_path / "nan.safetensors")
    save_file({name: value * 1e37 for name, value in weights.items()}, tmp_path / "huge.safetensors")
    words = ["distill", "device=cpu", "seeds=1", "recipe.epochs=1", "teacher=mlp", "teacher.hidden=[5]", "student=mlp",
             "student.hidden=[5]"]  # fmt: skip
    nan, huge = desk.problems(*words, "-m", "teacher.from=nan.safetensors,huge.safetensors")
    assert "nan.safetensors: layers.0.weight contains nan in 1 of 320 places; these weights diverged" in nan
    assert "teacher.from=huge.safetensors: its outputs on the validation images are not finite" in huge
    output = desk.type(*words, "teacher.from=huge.safetensors", "teacher.trust=true")
    whole = " ".join((output.stdout + output.stderr).split())
    assert output.returncode == 2 and "Traceback" not in whole, whole
    assert "(huge.safetensors): its outputs on the data set's images are not finite" in whole
    assert not list((tmp_path / "outputs").glob("store/*/result.json"))
