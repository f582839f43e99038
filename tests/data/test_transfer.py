import pytest
import torch

from kdrun import data
from kdrun.data.sets import ImageSet
from kdrun.data.transfer import TransferSet
from tests.data.given import SPLIT, load_folder, picture, tree


def digits():
    return data.load("digits.digits", name="digits", **SPLIT)


def test_by_default_it_is_the_training_part_itself():
    assert TransferSet().apply(digits()) is digits().train


def test_a_fraction_is_stratified_and_follows_its_own_seed():
    train = digits().train
    chosen = TransferSet(fraction=0.1).apply(digits())
    assert len(chosen) == 144
    assert (chosen.labels.bincount() - train.labels.bincount() / 10).abs().max() < 1
    torch.manual_seed(7)
    assert torch.equal(chosen.images, TransferSet(fraction=0.1).apply(digits()).images)
    assert not torch.equal(chosen.images, TransferSet(fraction=0.1, seed=1).apply(digits()).images)


def test_omitted_classes_are_gone_by_name_and_by_number():
    for omit in ([3, 7], ["3", "7"], ["3", 7]):
        labels = TransferSet(omit_classes=omit).apply(digits()).labels
        assert set(labels.tolist()) == {0, 1, 2, 4, 5, 6, 8, 9}


def test_a_word_is_a_class_name_and_a_number_is_a_label(tmp_path):
    loaded = load_folder(tree(tmp_path, classes=("1", "0", "zebra")))
    assert loaded.classes == ("0", "1", "zebra")
    assert TransferSet(omit_classes=["zebra", 0]).omitted(loaded) == [0, 2]


@pytest.mark.parametrize("wrong", ["four", 10, -1, True, 2.5])
def test_an_unknown_class_is_an_error_that_lists_the_classes(wrong):
    with pytest.raises(ValueError, match=rf"digits has no class {wrong}.*from 0 to 9, or names: 0, 1, 2"):
        TransferSet(omit_classes=[wrong]).apply(digits())


def test_without_labels_every_label_is_minus_one():
    chosen = TransferSet(labels=False).apply(digits())
    assert set(chosen.labels.tolist()) == {-1} and torch.equal(chosen.images, digits().train.images)


def test_extra_images_are_added_unlabelled_at_the_size_and_channels_of_the_data(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    picture(1, (20, 30)).save(tmp_path / "a.png")
    picture(2).save(tmp_path / "deep" / "er" / "b.png")
    chosen = TransferSet(extra=str(tmp_path), fraction=0.5).apply(digits())
    assert len(chosen) == round(0.5 * 1437) + 2
    assert chosen.labels[-2:].tolist() == [-1, -1] and (chosen.labels[:-2] >= 0).all()
    assert chosen.images.shape[1:] == (1, 8, 8)


@pytest.mark.parametrize("resident", [True, False])
def test_extra_images_that_are_held_out_or_tested_on_are_counted(tmp_path, resident):
    root = tree(tmp_path / "data", parts=("train", "val", "test"))
    dataset = load_folder(root, max_resident_gb=8.0 if resident else 1e-9)
    assert isinstance(dataset.test, ImageSet) == resident
    assert TransferSet().of_held_out(dataset) == ""
    extra = tmp_path / "extra"
    extra.mkdir()
    picture(99).save(extra / "new.png")
    assert TransferSet(extra=str(extra)).of_held_out(dataset) == ""
    for part, name in (("val", "cat/0.png"), ("test", "cat/0.png"), ("test", "dog/1.png")):
        (extra / f"{part}-{name.replace('/', '-')}").symlink_to(root / part / name)
    warning = TransferSet(extra=str(extra)).of_held_out(dataset)
    assert "1 validation and 2 test images are among the 4 extra ones" in warning


def test_the_identity_names_extra_images_by_content_and_a_seed_only_where_it_is_used(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        picture(1).save(tmp_path / folder / "a.png")
    one, two = (TransferSet(extra=str(tmp_path / f)).identity(digits()) for f in ("one", "two"))
    assert one == two and len(one["extra"]) == 64
    picture(2).save(tmp_path / "two" / "a.png")
    assert TransferSet(extra=str(tmp_path / "two")).identity(digits()) != one
    assert TransferSet(seed=5).identity(digits()) == TransferSet().identity(digits())
    assert TransferSet(fraction=0.5, seed=5).identity(digits()) != TransferSet(fraction=0.5).identity(digits())
    assert TransferSet(omit_classes=["3", 1]).identity(digits())["omit_classes"] == [1, 3]


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"transfer.fraction=.*must lie in \(0, 1\]"):
        TransferSet(fraction=fraction)


def test_a_set_with_no_image_left_is_an_error():
    with pytest.raises(ValueError, match="leaves no image of 1437; raise the fraction"):
        TransferSet(fraction=0.0001).apply(digits())
    with pytest.raises(ValueError, match="leaves no image of 1437"):
        TransferSet(omit_classes=list(range(10))).apply(digits())


def test_missing_extra_images_are_an_error_under_their_own_key(tmp_path):
    with pytest.raises(ValueError, match=r"transfer.extra=.*there is no"):
        TransferSet(extra=str(tmp_path / "none")).apply(digits())
