"""What holds for every augmentation: its file, its arguments, its place among the others."""

import importlib
import inspect
import pkgutil
import re

import pytest
import yaml

from kdrun import augment, losses
from kdrun.augment.base import Augmentation, Mixing
from kdrun.command import groups, preflight
from kdrun.config import CONF
from kdrun.losses.base import Term
from kdrun.plan.requests import RequestBuilder

FILES = sorted((CONF / "augment").glob("*.yaml"))
NODES = {name: node for file in FILES for name, node in (yaml.safe_load(file.read_text()) or {}).items()}
SINGLE = [name for name in NODES if name != "defaults"]


@pytest.mark.parametrize("name", SINGLE)
def test_the_keys_of_the_file_are_the_arguments_of_the_class(name):
    file, _, cls = NODES[name]["use"].partition(".")
    module = importlib.import_module(f"kdrun.augment.{file}")
    assert file == name and module.__all__ == [cls]
    assert set(NODES[name]) - {"use"} == set(inspect.signature(getattr(module, cls)).parameters)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_first_comment_says_what_it_does(file):
    first = file.read_text().splitlines()[0]
    assert re.match(r"# [A-Z]", first) and 15 < len(first) < 120


def test_no_two_augmentations_share_their_random_numbers_or_their_place():
    files = [m.name for m in pkgutil.iter_modules(augment.__path__) if m.name not in augment.SHARED]
    classes = [getattr(m := importlib.import_module(f"kdrun.augment.{f}"), m.__all__[0]) for f in files]
    streams = [cls.stream for cls in classes]
    orders = [cls.order for cls in classes if issubclass(cls, Augmentation)]
    assert len(set(streams)) == len(streams) and len(set(orders)) == len(orders)
    assert all(issubclass(cls, Augmentation | Mixing) for cls in classes)
    assert all(f"{f}.yaml" in {file.name for file in FILES} for f in files)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": {"use": "mixup.Mixup", "alpha": 0}}, r"augment.mixup: alpha=0: must be above 0"),
        ({"cutmix": {"use": "cutmix.Cutmix", "probability": 1.5}}, r"augment.cutmix: probability=1.5: must lie in"),
        (
            {"crop_flip": {"use": "crop_flip.CropFlip", "padding": 9}},
            r"padding=9 \(dataset.crop_padding\): must lie in",
        ),
        ({"crop": {"use": "crop.Crop"}}, r"augment.crop: use=crop.Crop: kdrun.augment has crop_flip, "),
        ({"mixup": {"use": "mixup.Mixup", "beta": 1}}, r"augment.mixup: got an unexpected keyword argument 'beta'"),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_name(settings, message):
    with pytest.raises(ValueError, match=message):
        augment.build(settings, mean=[0.5], size=(8, 8))


@pytest.fixture(scope="module")
def dirs():
    folders = groups.user_dirs()
    groups.register(folders)
    return folders


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("augment=mixpu", "there is no such augment. Did you mean mixup?"),
        ("augment=[mixup,mixup]", "mixup is listed twice; once is enough"),
        ("augment.views=0", "augment.views=0: must lie in [1, 10000]"),
        ("teacher.augment.views=1.5", "teacher.augment.views=1.5: must be a whole number of views"),
        ("augment.seed=3", "augment.seed=3: has no effect without augment.views=K"),
        ("augment.mixup.alpha=2", "'augment=[crop_flip,mixup]' chooses it too, augment=mixup chooses it alone"),
        ("teacher.augment.mixup.alpha=2", "augment@teacher.augment=mixup chooses it"),
        ("recipe@teacher.recipe=patient", "recipe=patient also chooses the students' augment and loss"),
        ("teacher.table_gb=-1", "teacher.table_gb=-1: must lie in [0, inf)"),
    ],
)
def test_a_word_that_names_none_or_is_out_of_range_is_answered_with_what_to_type(dirs, word, answer):
    (problem,) = preflight.check("distill", [word], sweep=False, dirs=dirs).problems
    assert answer in problem


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["augment=mixup", "dataset.flip=true"],
            "augment=mixup replaces crop_flip, the data set's crops and mirroring;",
        ),
        (["augment=[erasing,crop_flip]", "dataset.flip=true"], ""),
        (["augment=none"], ""),
        (["augment=mixup"], ""),  # digits are neither shifted nor mirrored
        (
            ["augment@teacher.augment=mixup", "dataset.flip=true"],
            "augment@teacher.augment=mixup replaces crop_flip, the data set's crops and mirroring;",
        ),
    ],
)
def test_an_augmentation_in_place_of_the_data_set_s_crops_says_so(dirs, words, sentence):
    (cell,) = preflight.check("distill", words, sweep=False, dirs=dirs).cells
    own = RequestBuilder.without_crops(cell.cfg, cell.cfg.augment, "augment")
    teachers = RequestBuilder.without_crops(cell.cfg, cell.cfg.teacher.augment, "augment@teacher.augment")
    assert (own or teachers).startswith(sentence) and bool(own or teachers) == bool(sentence)


def test_terms_that_would_take_a_mixed_image_for_one_are_refused(monkeypatch):
    class Mine(Term):
        def forward(self, student, teacher, batch):
            return student.logits.mean()

    class Declared(Mine):
        needs_labels = False

    for name, use in (("dkd", "dkd.DKD"), ("ca_mkd", "ca_mkd.CAMKD")):
        with pytest.raises(ValueError, match=f"loss.{name}: reads one label of each image"):
            losses.refuse_mixing({"ce": {"use": "ce.CE"}, name: {"use": use}})
    with pytest.raises(ValueError, match=r"loss.crd: remembers each image in a bank"):
        losses.refuse_mixing({"crd": {"use": "crd.CRD"}})
    monkeypatch.setattr(losses, "find", {"mine:Mine": Mine, "mine:Declared": Declared}.get)
    with pytest.raises(
        ValueError, match=r"loss.mine: may read labels \(if it does not, write needs_labels = False into the"
    ):
        losses.refuse_mixing({"mine": {"use": "mine:Mine"}})
    losses.refuse_mixing({"mine": {"use": "mine:Declared"}})
    monkeypatch.undo()
    losses.refuse_mixing({name: {"use": use} for name, use in (("ce", "ce.CE"), ("kd", "kd.KD"), ("at", "at.AT"))})
