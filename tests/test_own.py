"""Things of the user's own: what a name may mean, what of them identifies a result, and the pages that show them."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from kdrun import data, losses, own
from kdrun.data import arrays
from kdrun.tracking import base as trackers
from kdrun.verbs import losses as verb
from tests.cli.conftest import Desk

DOCS = Path(__file__).parents[1] / "docs"
LOSS = """
from kdrun.losses.base import Term
import {helper}

class Mine(Term):
    def __init__(self, power=2.0):
        super().__init__()
        assert power != 3, "three is too many"
        self.power = power + {helper}.MORE
    def forward(self, student, teacher, batch):
        return (student.logits - teacher.logits.detach()).abs().pow(self.power).mean()
    def formula(self):
        return f"|z_t − z_s|^{{self.power:g}}"

def nothing():
    pass
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, whose modules have names that no other test's have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def blocks(page, kind):
    """The examples of a page."""
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_of_a_network_arrays_and_a_tracker_are_listed_and_trained(tmp_path):
    desk = Desk(tmp_path)
    (network,), (dataset,) = blocks("own-networks.md", "yaml"), blocks("own-data.md", "yaml")
    desk.write("conf/model/tiny.yaml", network)
    desk.write("conf/dataset/spectra.yaml", dataset)
    desk.write("my_data.py", blocks("own-data.md", "python")[0])
    desk.write("my_track.py", *blocks("tracking.md", "python"))
    desk.write(
        "my_package/nets.py",
        "from torch import nn\nclass Tiny(nn.Sequential):\n    def __init__(self, num_classes, in_channels, width=8):\n"
        "        super().__init__(nn.Conv2d(in_channels, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        "nn.Linear(width, num_classes))\n",
    )
    short = ["recipe.epochs=2", "recipe.warmup_epochs=0", "seeds=1", "device=cpu", "dataset=spectra"]
    output = desk.runs("train", "baseline", "student=tiny", "student.width=4", "tracker=my_track:Tracker", *short)
    assert re.search(r"^baseline +tiny +55 ", output, re.MULTILINE)
    tracked = (tmp_path / "outputs" / "tracked.txt").read_text().splitlines()
    assert [line.split()[0] for line in tracked] == ["begin", "baseline", "baseline", "end"]
    assert tracked[-1] == "end baseline tiny seed 0 done"
    refused = desk.refuses("train", "baseline", "tracker=my_data:load", *short)
    assert "tracker=my_data:load: is of type function, not a tracker, and was not called; name a class with" in refused


def test_a_name_is_refused_with_what_exists_and_why(here):
    (here / "own_of_names.py").write_text(LOSS.format(helper="math").replace("math.MORE", "0"))
    (here / "own_that_fails.py").write_text("raise OSError('no licence')")
    for use, message in {
        "own_of_names:Mime": "own_of_names has no Mime; its losses: Mine",
        "own_of_names:nothing": "is of type function, not a loss, and was not called; name a class that inherits",
        "own_that_fails:A": "importing own_that_fails fails with OSError: no licence",
        "own_nowhere:A": "there is no module own_nowhere",
        "builtins:dict": "is another class, not a loss",
        "__main__:Mine": "code in a script or notebook cannot be imported by other processes",
        "kdrun.losses.kd:KD": "kdrun's own losses are named as use: kd.KD",
        "own_of_names:": "write it as package.module:Name",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            losses.find(use)
    node = {"use": "own_of_names:Mine", "weight": 1.0}
    for name, changed, message in (
        ("mine", {"pow": 2}, r"loss\.mine: .*'pow'; own_of_names:Mine takes \(power=2\.0\)"),
        ("mine", {"power": 3}, r"loss\.mine: Mine cannot be built: three is too many \(own_of_names\.py, line 8\)"),
        ("kd", {}, r"loss\.kd: .* kd is the name of one of kdrun's own losses"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.build({name: {**node, **changed}})


def test_the_code_of_a_loss_and_of_what_it_imports_is_identified_and_read_as_it_is_now(here):
    loss, helper = here / "own_of_identity.py", here / "own_helper.py"
    helper.write_text("import os\nMORE = 0")
    loss.write_text(LOSS.format(helper="own_helper"))
    terms = {"mine": {"use": "own_of_identity:Mine", "weight": 1.0}, "kd": {"use": "kd.KD", "weight": 1.0, "T": 4.0}}
    digests = []
    for file, text in ((None, ""), (helper, "MORE = 1"), (loss, loss.read_text() + "# another"), (helper, "MORE = 10")):
        if file is not None:
            file.write_text(text)
        known = losses.identified(terms)
        digests.append(known["mine"]["digest"])
        assert known["kd"] == terms["kd"]
    assert len(set(digests)) == 4
    assert losses.build(known).formula() == "|z_t − z_s|^12 + 4²·KL(p_t ‖ p_s; T=4)"
    assert own.imports(losses.find("own_of_identity:Mine"))[0].__name__ == "own_helper"


BROKEN = """
from kdrun.losses.base import Term

class Broken(Term):
    logits_only = True
    steps = 0
    def forward(self, student, teacher, batch):
        self.steps += 1
        difference = student.embedding.mean() - teacher.embedding.mean() + batch.labels.sum()
        return self.steps * difference if difference.item() < 1e9 else difference
"""


def test_the_check_of_a_loss_says_which_parts_of_the_contract_it_breaks_and_ends_with_2(here, capsys):
    (here / "own_of_checks.py").write_text(BROKEN)
    assert verb.main(["check", "own_of_checks:Broken"]) == 2
    printed = capsys.readouterr().out
    for line in (
        "own_of_checks:Broken",
        "ok      sends a gradient to the student",
        "failed  has a formula of one line: it has no formula()",
        "failed  sends no gradient to the teacher: a gradient reaches the teacher; detach the teacher's outputs",
        "failed  has the gradient of its value, by finite differences: its slope is",
        "failed  never waits for the device: it reads a tensor's value on the host",
        "failed  reads labels only with needs_labels, and takes images without one: it reads labels: set needs_labels",
        "failed  keeps all state in parameters and buffers: a resumed training goes on with another value",
        "failed  reads the teacher's logits alone, with logits_only: it reads more than the teacher's logits",
    ):
        assert re.search(rf"^{re.escape(line)}", printed, re.MULTILINE), line
    with pytest.raises(ValueError, match=r"type kdrun losses check NAME, or package\.module:Class"):
        verb.main(["check"])
    for number, text in enumerate(("[", "text", "- a", "use: own_of_checks:Broken\nweight: {}")):
        (here / "conf" / "loss").mkdir(parents=True, exist_ok=True)
        (here / "conf" / "loss" / f"odd{number}.yaml").write_text(text)
    assert verb.main([]) == 0
    assert len(re.findall(r"odd\d +unreadable", capsys.readouterr().out)) == 4


IMAGES, LABELS = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
SOUND = {"train": (IMAGES, LABELS), "test": (IMAGES + 1, LABELS), "classes": ["a", "b"]}
SPLIT = {"val_fraction": 0.0, "split_seed": 0}


def load(returned, **changed):
    return arrays.arrays(lambda: returned, "my:load", name="mine", **{**SPLIT, **changed})


def test_arrays_of_any_layout_are_the_same_data():
    last = {part: (SOUND[part][0][..., None], list(LABELS)) for part in ("train", "test")}
    first = {part: (SOUND[part][0][:, None], LABELS.astype("uint8")) for part in ("train", "test")}
    digests = {load({**SOUND, **layout}).digest for layout in ({}, last, first)}
    assert len(digests) == 1
    loaded = load({**SOUND, "test": None}, test_fraction=0.34)
    assert (len(loaded.train), len(loaded.test), loaded.classes, loaded.mean) == (4, 2, ("a", "b"), (0.0,))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (3, r"returned int; it must return a dictionary: \{\"train\": \(images, labels\)"),
        ({"train": None}, "train must be a pair"),
        ({"extra": 1}, "returned the key extra"),
        ({"train": (IMAGES / 255, LABELS)}, r"train images are float64 from 0 to 0; .*\(255 \* images\)\.round\(\)"),
        ({"test": (IMAGES, LABELS[:-1])}, "test has 6 images and 5 labels"),
        ({"test": (IMAGES, LABELS + 1)}, r"test has the label 2; 2 classes have the labels 0 to 1"),
        ({"test": (IMAGES, LABELS / 1)}, "test labels are float64"),
        ({"test": (IMAGES, np.eye(2)[LABELS])}, r"take labels\.argmax\(1\)"),
        ({"test": (IMAGES[:0], LABELS[:0])}, "test has no images"),
        ({"test": (np.zeros((6, 5, 5), np.uint8), LABELS)}, "different shapes: train 1×4×4, test 1×5×5"),
        ({"test": (np.zeros((6, 2, 4, 4), np.uint8), LABELS)}, r"C 1 or 3"),
        ({"test": (np.zeros((6, 3, 4, 3), np.uint8), LABELS)}, "cannot tell if channels come first or last"),
        ({"test": None}, r"no test images; return some, or set dataset\.test_fraction=0\.2"),
        ({"classes": "ab"}, "classes is str"),
        ({"classes": ["a", "a"]}, "two classes are called a"),
        ({"classes": ["a", "b", "c"]}, "train has no image of c"),
    ],
)
def test_arrays_that_kdrun_cannot_use_are_refused_with_what_it_needs(changed, message):
    with pytest.raises(ValueError, match=message):
        load({**SOUND, **changed} if isinstance(changed, dict) else changed)


def test_a_data_set_takes_the_arguments_of_its_function_and_is_loaded_anew_when_its_code_changes(here):
    file = here / "own_of_arrays.py"
    source = "import numpy as np\ndef load(shade):\n    x, y = np.full((6, 4, 4), shade, np.uint8), np.arange(6) % 2\n"
    file.write_text(source + "    return {'train': (x, y), 'test': (x + 1, y), 'classes': ['a', 'b']}\n")
    first = data.load("own_of_arrays:load", name="mine", shade=3, **SPLIT)
    assert data.load("own_of_arrays:load", name="mine", shade=3, **SPLIT) is first
    file.write_text(file.read_text().replace("x + 1", "x + 2"))
    assert data.load("own_of_arrays:load", name="mine", shade=3, **SPLIT).digest != first.digest
    with pytest.raises(ValueError, match=r"unexpected keyword argument 'fold'; it takes \(shade\)"):
        data.load("own_of_arrays:load", name="mine", shade=3, fold=3, **SPLIT)
    with pytest.raises(ValueError, match="digits is the name of one of kdrun's own data sets"):
        data.load("own_of_arrays:load", name="digits", shade=3, **SPLIT)
    file.write_text("def load():\n    return {}['train']\n")
    with pytest.raises(ValueError, match=r"own_of_arrays:load fails: KeyError: 'train' \(own_of_arrays\.py, line 2\)"):
        data.load("own_of_arrays:load", name="mine", **SPLIT)


def test_a_tracker_without_one_of_its_methods_is_refused(here):
    (here / "own_of_tracks.py").write_text("class Half:\n    def begin(self, training): pass\n")
    with pytest.raises(ValueError, match="tracker=own_of_tracks:Half: is another class, not a tracker"):
        trackers.find("own_of_tracks:Half")
    assert os.getcwd() in sys.path
