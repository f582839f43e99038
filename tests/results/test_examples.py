"""The test images that a run keeps for its page."""

import numpy as np
import pytest

from kdrun.results.comparison import examples
from kdrun.results.plots.softened import Example, plot_softened


def test_ordinary_images_of_different_classes_are_chosen():
    labels = np.repeat(np.arange(10), 11)
    rng = np.random.default_rng(0)
    sure = np.tile(np.linspace(1, 6, 11), 10)
    logits = sure[:, None] * np.eye(10)[labels] + 0.001 * rng.normal(size=(110, 10))
    chosen = examples.choose(logits, labels)
    assert labels[chosen].tolist() == [0, 2, 4, 7, 9]
    assert [i % 11 for i in chosen] == [5] * 5  # as sure as on half of the class


def test_images_that_the_teacher_gets_wrong_are_not_chosen():
    labels = np.array([0, 0, 1, 1, 2])
    logits = 3.0 * np.eye(3)[[0, 1, 1, 1, 0]]
    assert examples.choose(logits, labels) == [0, 3]
    assert examples.choose(3.0 * np.eye(3)[[1, 1, 0, 0, 0]], labels) == []


def test_they_are_read_as_they_were_written(tmp_path):
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    examples.write(tmp_path, [7, 3], pixels.transpose(0, 2, 1, 3)[:, :, ::-1])
    indices, kept = examples.read(tmp_path)
    assert indices == [7, 3] and np.array_equal(kept, pixels.transpose(0, 2, 1, 3)[:, :, ::-1])
    assert examples.read(tmp_path / "none") is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / examples.FILE).write_bytes(b"no")
    with pytest.raises(ValueError, match=r"examples\.safetensors cannot be read"):
        examples.read(tmp_path)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
@pytest.mark.parametrize("classes", [2, 100])
def test_softened_targets_are_drawn_grey_or_in_colour_for_few_and_many_classes(tmp_path, shape, classes):
    rng = np.random.default_rng(0)
    example = Example(4, rng.integers(255, size=shape, dtype=np.uint8), 1, rng.normal(size=classes), np.zeros(classes))
    names = ["$a$ <b>", *map(str, range(1, classes))]
    plot_softened([example, example], names, tmp_path)
    drawn = (tmp_path / "softened.svg").read_text()  # text is drawn as outlines, each with a comment
    assert [drawn.count(f"<!-- T = {T} -->") for T in (1, 2, 4, 8)] == [1, 1, 1, 1]
    assert drawn.count("test image 4") == 2 and "<b>" not in drawn
    assert (tmp_path / "softened.png").stat().st_size > 5_000
