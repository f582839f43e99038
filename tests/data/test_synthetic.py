import pytest
import torch
from sklearn.linear_model import LogisticRegression

from kdrun import data
from tests.data.given import SPLIT

ARGUMENTS = {
    "num_classes": 5,
    "size": 12,
    "channels": 3,
    "train_images": 600,
    "test_images": 200,
    "data_seed": 0,
}


def synthetic(**changed):
    return data.load("synthetic.synthetic", name="synthetic", **{**SPLIT, **ARGUMENTS, **changed})


def test_a_linear_classifier_learns_them_far_beyond_chance_but_not_perfectly_from_little():
    loaded = synthetic()
    x, y = (s.images.flatten(1).numpy() / 255 for s in (loaded.train, loaded.test))
    accuracy = LogisticRegression(max_iter=200).fit(x, loaded.train.labels).score(y, loaded.test.labels)
    assert accuracy > 0.8


def test_shapes_and_counts_are_those_that_were_asked_for():
    loaded = synthetic(channels=1, size=9)
    assert loaded.train.images.shape == (600, 1, 9, 9) and loaded.test.images.shape == (200, 1, 9, 9)
    assert loaded.num_classes == 5 and loaded.in_channels == 1 and loaded.image_size == (9, 9)
    assert set(loaded.train.labels.bincount().tolist()) == {120}


def test_images_follow_the_data_seed_alone():
    first = synthetic()
    torch.manual_seed(3)
    again = synthetic(train_images=1200)
    assert torch.equal(first.train.images, again.train.images[:600])
    assert synthetic(data_seed=1).digest != first.digest
    assert not torch.equal(first.train.images[:200], first.test.images)


@pytest.mark.parametrize("wrong", [{"num_classes": 1}, {"size": 2}, {"channels": 2}, {"train_images": 5}])
def test_what_is_out_of_range_is_refused(wrong):
    ((key, value),) = wrong.items()
    answer = "choose 1 or 3$" if key == "channels" else "must lie in"
    with pytest.raises(ValueError, match=f"dataset.{key}={value}: {answer}"):
        synthetic(**wrong)
