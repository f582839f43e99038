"""kdrun predict: image files classified as the data set would read them; what cannot be read is named."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.data.folder import folder
from kdrun.export.write import write
from kdrun.verbs import predict
from tests.data.given import folder_arguments, picture
from tests.export.given import network


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """An exported network of three classes on colour images of 10×8, untrained, and its logits function."""
    place = tmp_path_factory.mktemp("pets")
    net, sheet = network("mlp", hidden=[8], size=(8, 10), channels=3)
    write(net, sheet("safetensors"), place)
    return place, net


@pytest.fixture
def photos(tmp_path):
    """A folder of a PNG, a grey WebP and a JPEG of other sizes, one of them further down."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    picture(1, (10, 8)).save(place / "a.png")
    picture(2, (40, 20), "L").save(place / "b.webp")
    picture(3, (9, 31)).save(place / "more" / "c.jpg")
    return place


def predicted(capsys, *words, code=0):
    """What the verb prints as JSON, and on standard error."""
    assert predict.main([*map(str, words), "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_a_file_a_folder_and_an_archive_give_the_classes_that_the_network_gives(pets, photos, tmp_path, capsys):
    place, net = pets
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        content = io.BytesIO()
        picture(4, (12, 12)).save(content, "PNG")
        archive.writestr("in/d.png", content.getvalue())
    result, err = predicted(capsys, place, photos, tmp_path / "d.zip", "--top", "2")
    names = [image["file"].removeprefix(f"{tmp_path}/") for image in result["images"]]
    assert names == ["photos/a.png", "photos/b.webp", "photos/more/c.jpg", "d.zip/in/d.png"] and err == ""
    pixels = np.asarray(picture(1, (10, 8))).transpose(2, 0, 1)[None]
    with torch.no_grad():
        p = net(torch.tensor(pixels)).softmax(1)[0]
    best = result["images"][0]
    assert best["index"] == int(p.argmax()) and best["class"] == net.classes[best["index"]]
    assert best["probability"] == pytest.approx(float(p.max()), abs=1e-6)
    assert [one["probability"] for one in best["top"]] == pytest.approx(
        p.sort(descending=True)[0][:2].tolist(), abs=1e-6
    )


def test_images_are_read_just_as_the_data_set_reads_them(pets, tmp_path, capsys):
    """Colour, grey, transparent, lying and 16-bit files of other sizes, against the pixels of dataset=folder."""
    place, net = pets
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            picture(5, (10, 8)).save(tmp_path / part / name / "plain.png")
    deep = np.random.default_rng(0).integers(0, 2**16, (30, 20), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "test" / "dog" / "deep.png")
    picture(6, (50, 20), "L").save(tmp_path / "test" / "dog" / "grey.png")
    picture(7, (20, 50), "RGBA").save(tmp_path / "test" / "dog" / "see-through.png")
    lying = Image.Exif()
    lying[0x0112] = 8
    picture(8, (20, 50)).save(tmp_path / "test" / "dog" / "turned.jpg", exif=lying)
    read = folder(**folder_arguments(tmp_path, size=[8, 10], channels=3)).test
    with torch.no_grad():
        wanted = net(read.images.contiguous()).softmax(1).max(1).values
    result, _ = predicted(capsys, place, tmp_path / "test")
    assert [image["probability"] for image in result["images"]] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_one_bad_file_costs_only_itself_and_is_named_with_exit_code_2(pets, photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    result, err = predicted(capsys, pets[0], "gone.png", photos, tmp_path / "empty", code=2)
    sentence = {image["file"].rpartition("/")[2]: image.get("error") for image in result["images"]}
    assert {name for name, why in sentence.items() if why is None} == {"a.png", "b.webp", "c.jpg"}
    assert (
        sentence["broken.png"] == "not a PNG, JPEG, WebP, BMP, TIFF or GIF file"
        and sentence["gone.png"] == "there is no such file"
    )
    assert sentence["empty"] == "no image found; needs PNG, JPEG, WebP, BMP, TIFF or GIF files"
    assert err.startswith("kdrun: 3 of 6 files could not be classified: gone.png: there is no such file; ")


def test_the_table_names_class_probability_and_runners_up(pets, photos, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # else the name of a long folder pushes the last column into two lines
    assert predict.main([str(pets[0] / "model.safetensors"), str(photos / "a.png")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "a.png" in line)
    _, first, share, second, p2, third, p3 = row.replace(",", "").split()
    assert {first, second, third} == set(pets[1].classes)
    assert float(share) >= float(p2) >= float(p3) and float(share) + float(p2) + float(p3) == pytest.approx(
        100, abs=0.2
    )
    assert predict.main([str(pets[0]), str(photos / "a.png"), "--top", "1"]) == 0
    output = capsys.readouterr().out
    assert "runners-up" not in output and "RGB, cropped around the centre to the aspect ratio of 10×8" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "predict: which network?"),
        (["{pets}"], "predict: which images?"),
        (["{pets}", "{photos}", "--top", "0"], "--top 0: at least 1"),
        (["{pets}", "{photos}", "--tpo", "1"], "unrecognized arguments: --tpo"),
        (["{pets}", "{photos}", "role=teacher"], "contains a single network; leave role and seed out"),
        (["{photos}/a.png", "{photos}"], "is not an exported network; these end in .safetensors, .onnx, .pt2"),
        (["gone.onnx", "{photos}"], "gone.onnx: there is no such file"),
        (["gone", "{photos}", "outputs={photos}"], "gone: there is no such run under"),
    ],
)
def test_what_is_typed_wrong_is_refused(pets, photos, words, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        predict.main([word.format(pets=pets[0], photos=photos) for word in words])


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".pt2"])
def test_a_damaged_file_is_refused_by_name(photos, tmp_path, suffix):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(b"\0" * 64)
    with pytest.raises(ValueError, match=rf"model\{suffix}: cannot be opened, it is damaged or of another format"):
        predict.main([str(file), str(photos)])


def test_a_graph_that_is_no_export_of_kdrun_is_refused_without_opening_it(photos, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "foreign.pt2", "w") as archive:
        archive.writestr("foreign/data/weights/weight_0", b"\0")
    monkeypatch.setattr(torch.export, "load", lambda *words, **more: pytest.fail("it was opened"))
    with pytest.raises(ValueError, match=r"foreign\.pt2: has no description of its classes"):
        predict.main([str(tmp_path / "foreign.pt2"), str(photos)])


def test_weights_without_a_description_are_refused(photos, tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"has no description of its classes .* no kdrun\.json beside it"):
        predict.main([str(tmp_path / "w.safetensors"), str(photos)])


def test_the_description_beside_a_file_serves_where_the_one_inside_is_lost(pets, photos, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    place, _ = pets
    save_file(load_file(place / "model.safetensors"), tmp_path / "model.safetensors")
    (tmp_path / "kdrun.json").write_text((place / "kdrun.json").read_text())
    assert predicted(capsys, tmp_path, photos)[0]["images"] == predicted(capsys, place, photos)[0]["images"]
