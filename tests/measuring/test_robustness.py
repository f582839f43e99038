"""Networks on corrupted and attacked images: the same images for all, counted as one would count by hand."""

import pytest
import torch
from PIL import Image

from kdrun import data
from kdrun.config import Robustness
from kdrun.data.sets import ImageSet
from kdrun.measuring import conditions, robustness
from kdrun.measuring.attacks import fgsm, pgd
from kdrun.measuring.corruptions import corrupt

CPU = torch.device("cpu")


def scenes(count=60, classes=3, seed=0):
    """Bars whose direction and thickness are their class, with some noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 60, (count, 1, 12, 12), generator=rng, dtype=torch.uint8)
    for image, label in zip(images, labels, strict=True):
        at = int(torch.randint(2, 8, (1,), generator=rng))
        place = (slice(None), slice(at, at + 2)) if label == 0 else (slice(at, at + 2 + 2 * int(label == 2)),)
        image[0][place] += 150
    return ImageSet(images, labels)


def linear(seed):
    """A linear classifier, which attacks can hurt."""
    weights = torch.randn(144, 3, generator=torch.Generator().manual_seed(seed)) / 4
    return lambda pixels: pixels.flatten(1) @ weights


def accuracy(classify, pixels, labels):
    return (classify(pixels).argmax(1) == labels).double().mean().item()


@pytest.fixture
def how():
    return Robustness(
        corruptions=["blur", "gaussian_noise"], severities=[1, 5], fgsm=[2.0, 8.0], pgd=[8.0], pgd_steps=4,
        attack_images=None,
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [60, 7])
def test_every_family_is_counted_as_by_hand(how, batch_size):
    images = scenes()
    networks = {"a": linear(0), "b": linear(1)}
    pixels, at = images.images.float() / 255, torch.arange(60)
    shown = {
        ("clean", "0"): lambda _: pixels,
        ("blur", "5"): lambda _: corrupt(images.images, "blur", 5, seed=0, indices=at).float() / 255,
        ("gaussian_noise", "1"): lambda _: (
            corrupt(images.images, "gaussian_noise", 1, seed=0, indices=at).float() / 255
        ),
        ("fgsm", "0"): lambda _: pixels,
        ("fgsm", "8"): lambda net: fgsm(net, pixels, images.labels, 8),
        ("pgd", "8"): lambda net: pgd(net, pixels, images.labels, 8, steps=4, size=None, seed=0, indices=at),
    }
    result = {
        family: robustness.measure(family, how, networks, images, device=CPU, batch_size=batch_size)
        for family in conditions.families(how)
    }
    assert {family: list(own["a"]) for family, own in result.items()} == {
        "clean": ["0"], "blur": ["1", "5"], "gaussian_noise": ["1", "5"], "fgsm": ["0", "2", "8"], "pgd": ["0", "8"],
    }  # fmt: skip
    for (family, level), changed in shown.items():
        for name, net in networks.items():
            assert result[family][name][level] == accuracy(net, changed(net), images.labels), (family, level)
    assert result["pgd"]["a"]["8"] < result["clean"]["a"]["0"] != result["clean"]["b"]["0"]


def test_images_are_changed_once_for_all_networks(how, monkeypatch):
    calls = []

    def counted(images, name, severity, **more):
        calls.append((name, severity))
        return corrupt(images, name, severity, **more)

    monkeypatch.setattr(robustness, "corrupt", counted)
    networks = {str(seed): linear(seed) for seed in range(5)}
    robustness.measure("blur", how, networks, scenes(), device=CPU, batch_size=30)
    assert calls == [("blur", 1), ("blur", 5)] * 2


def test_a_part_of_the_images_is_stratified_and_lies_within_a_larger_one():
    labels = torch.tensor([0] * 600 + [1] * 300 + [2] * 100)
    some, more = (robustness.chosen(labels, "blur", Robustness(images=n)) for n in (50, 200))
    assert torch.bincount(labels[some]).tolist() == [30, 15, 5]
    assert set(some.tolist()) < set(more.tolist()) and (some.diff() > 0).all()
    assert robustness.chosen(labels, "pgd", Robustness(images=50, attack_images=20)).numel() == 20
    assert robustness.chosen(labels, "blur", Robustness(images=5000)).numel() == 1000
    other = robustness.chosen(labels, "blur", Robustness(images=50, seed=1))
    assert set(other.tolist()) != set(some.tolist())


def test_images_without_a_label_are_not_asked_about(how):
    whole = scenes()
    labels = torch.where(torch.arange(60) % 2 == 0, whole.labels, -1)
    half = whole.subset(torch.arange(0, 60, 2))
    at = torch.arange(0, 60, 2)
    result = robustness.measure(
        "gaussian_noise", how, {"a": linear(0)}, whole.with_labels(labels), device=CPU, batch_size=8
    )
    pixels = corrupt(half.images, "gaussian_noise", 5, seed=0, indices=at).float() / 255
    assert result["a"]["5"] == accuracy(linear(0), pixels, half.labels)


def test_the_images_of_a_part_are_those_of_the_whole(how):
    """An image is corrupted by its place in the test set, not by its place among those asked about."""
    seen = {}

    def recorder(name):
        def classify(pixels):
            seen.setdefault(name, []).append((255 * pixels).round().byte())
            return torch.zeros(len(pixels), 3)

        return classify

    few = Robustness(**vars(how) | {"images": 12, "severities": [5]})
    places = robustness.chosen(scenes().labels, "gaussian_noise", few)
    robustness.measure("gaussian_noise", few, {"few": recorder("few")}, scenes(), device=CPU, batch_size=5)
    every = Robustness(**vars(how) | {"severities": [5]})
    robustness.measure("gaussian_noise", every, {"all": recorder("all")}, scenes(), device=CPU, batch_size=64)
    assert torch.equal(torch.cat(seen["few"]), torch.cat(seen["all"])[places])


@pytest.mark.parametrize("family", ["clean", "blur", "fgsm", "pgd"])
def test_progress_ends_where_it_was_said_to_end(how, family):
    done = []
    robustness.measure(
        family, how, {"a": linear(0), "b": linear(1)}, scenes(), device=CPU, batch_size=25, tick=done.append
    )
    assert sum(done) == conditions.passes(family, how) * 60 * 2


def test_a_set_that_is_streamed_from_files_gives_what_it_gives_in_memory(tmp_path, how, monkeypatch):
    monkeypatch.setenv("KDRUN_CACHE", str(tmp_path / "cache"))
    for part, count in (("train", 6), ("test", 12)):
        for i in range(count):
            folder = tmp_path / "images" / part / f"class{i % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = scenes(count).images[i, 0].numpy()
            Image.fromarray(pixels).save(folder / f"{i:03}.png")
    settings = dict(root=str(tmp_path / "images"), size=None, channels=None, on_bad_image="stop", val_fraction=0,
                    split_seed=0)  # fmt: skip
    resident, streamed = (
        data.load("folder.folder", name="mine", max_resident_gb=room, **settings).test for room in (1.0, 0.0)
    )
    assert isinstance(resident, ImageSet) and not isinstance(streamed, ImageSet)
    for family in conditions.families(how):
        one, other = (
            robustness.measure(family, how, {"a": linear(0)}, images, device=CPU, batch_size=5)
            for images in (resident, streamed)
        )
        assert one == other


def test_what_determines_the_numbers_is_what_a_key_is_made_of(how):
    known = conditions.settings(how, "d")
    assert set(known) == {*vars(how), "numerics", "data"} and known != conditions.settings(how, "other")
    assert all(conditions.settings(Robustness(**vars(how) | {key: value}), "d") != known for key, value in {
        "seed": 1, "images": 7, "pgd_steps": 5, "fgsm": [2.0], "severities": [1], "corruptions": ["blur"],
    }.items())  # fmt: skip


def test_what_another_version_asked_is_not_taken_for_what_is_asked_here(how):
    known = conditions.settings(how, "d")
    assert conditions.recorded(known) == how == conditions.recorded(vars(how))
    assert conditions.recorded(known | {"patches": 3}) is None
    assert conditions.recorded(known | {"numerics": known["numerics"] + 1}) is None
    assert conditions.recorded({key: value for key, value in known.items() if key != "fgsm"}) is None


@pytest.mark.parametrize(("corruptions", "numerics"), [(["blur"], 1), (["blur", "pixelation"], 2), (["occlusion"], 2)])
def test_only_measurements_with_a_corruption_that_changed_are_of_another_version(how, corruptions, numerics):
    """What was measured before is found again where it holds, and is not mixed in where it does not."""
    request = Robustness(**vars(how) | {"corruptions": corruptions})
    known = conditions.settings(request, "d")
    assert known["numerics"] == numerics
    old = conditions.recorded(known | {"numerics": 1})
    assert old == (request if numerics == 1 else None)
