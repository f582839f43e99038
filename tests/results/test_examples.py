"""The test images that a run keeps for its page: which, why, and how they are drawn."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from safetensors.numpy import save_file
from scipy.stats import entropy

from kdrun.results.comparison import examples
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.examples import Answers
from kdrun.results.plots.gallery import Card, plot_cards
from kdrun.results.plots.softened import Example, plot_softened
from kdrun.results.plots.style import STYLE
from kdrun.results.report.images import CHANGED, MISSING, SOFTENED, image_blocks
from tests.results.given import LABELS, noisy, record, trio
from tests.results.given import artifact as made


def softmax(z):
    """The probabilities of logits, with numpy alone."""
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def answers(seed=0, samples=400, classes=10, **more):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=samples)
    z = [rng.normal(size=(samples, classes)) + sure * np.eye(classes)[labels] for sure in (4, 2.5, 2)]
    return Answers(0, labels, *z, **more)


def test_images_are_those_where_the_teacher_is_least_sure_and_where_the_student_differs_most():
    a = answers()
    chosen = a.choose()
    teacher, student = softmax(a.teacher), softmax(a.student)
    unsure = entropy(teacher, axis=1)
    apart = entropy(teacher, student, axis=1)  # of two arguments scipy's is the KL divergence
    assert chosen["ordinary"] == [int(np.argsort(unsure)[200])]
    first, second = chosen["unsure"]
    assert first == unsure.argmax()
    assert second == np.where(a.labels == a.labels[first], -1, unsure).argmax(), "of another class"
    apart[[first, second, *chosen["ordinary"]]] = -1
    assert chosen["disagree"][0] == apart.argmax() and len(chosen["disagree"]) == 2
    assert len(set(a.labels[chosen["disagree"]])) == 2


def test_images_that_one_network_gets_right_come_by_the_difference_of_the_true_class_and_are_counted():
    a = answers()
    repaired = (a.student.argmax(1) == a.labels) & (a.baseline.argmax(1) != a.labels)
    gain = (softmax(a.student) - softmax(a.baseline))[np.arange(400), a.labels]
    moved = a.moved()
    assert sorted(moved["repaired"]) == np.flatnonzero(repaired).tolist()
    assert moved["repaired"][0] == np.where(repaired, gain, -9).argmax()
    assert (np.diff(gain[moved["spoiled"]]) >= 0).all() and (gain[moved["spoiled"]] < 0).any()
    assert a.choose()["repaired"] == moved["repaired"][:6].tolist()
    alone = Answers(0, a.labels, a.teacher, a.student, None)
    assert alone.moved() == {} and list(alone.choose()) == ["ordinary", "unsure", "disagree"]


def test_equal_answers_are_taken_in_the_order_of_their_numbers_and_nan_last():
    z = np.zeros((6, 3))
    z[0] = np.nan
    same = Answers(0, np.array([0, 0, 0, 1, 1, 2]), z, z, z)
    assert same.choose() == {"ordinary": [3], "unsure": [1, 4], "disagree": [2, 5]}
    empty = Answers(0, np.zeros(2, int), np.full((2, 3), np.nan), np.zeros((2, 3)), None)
    assert empty.choose() == {}


def test_of_a_class_left_out_the_images_go_from_the_surest_to_the_least_sure_and_are_in_no_other_row():
    a = answers(omitted=[3])
    chosen = a.choose()
    sure = softmax(a.student)[:, 3]
    assert set(a.labels[chosen["missing"]]) == {3} and len(chosen["missing"]) == 6
    own = np.flatnonzero(a.labels == 3)
    assert chosen["missing"][0] == own[sure[own].argmax()] and chosen["missing"][-1] == own[sure[own].argmin()]
    assert (np.diff(sure[chosen["missing"]]) < 0).all()
    others = [i for kind in ("ordinary", "unsure", "disagree") for i in chosen[kind]]
    assert 3 not in a.labels[others]
    assert len(answers(omitted=[1, 2, 3, 4]).choose()["missing"]) == 4
    named = a.choose([7, 5])
    assert named["named"] == [7, 5] and "unsure" not in named and named["repaired"] == chosen["repaired"]


def test_they_are_read_as_they_were_written_and_large_ones_are_kept_small(tmp_path):
    pixels = np.arange(3 * 2 * 4 * 3, dtype=np.uint8).reshape(3, 2, 4, 3)
    examples.write(tmp_path, {"unsure": [7, 3], "repaired": [3, 5]}, pixels[:, :, ::-1])
    kept = examples.read(tmp_path)
    assert kept.chosen == {"unsure": [7, 3], "repaired": [3, 5]}
    assert list(kept.pixels) == [7, 3, 5] and np.array_equal(kept.pixels[5], pixels[2, :, ::-1])
    assert examples.read(tmp_path / "none") is None
    most = {"unsure": range(23)}  # one ordinary, two unsure, two that disagree, six of each of three other kinds
    photo = np.zeros((23, 192, 384, 3), np.uint8)
    photo[:, :, 2:4] = 200
    examples.write(tmp_path, most, photo)
    small = examples.read(tmp_path).pixels[22]
    assert small.shape == (48, 96, 3) and small[0, :2, 0].tolist() == [100, 0]
    examples.write(tmp_path, most, np.zeros((23, 224, 224, 3), np.uint8))
    assert (tmp_path / examples.FILE).stat().st_size < 1e6


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / examples.FILE).write_bytes(b"no")
    with pytest.raises(ValueError, match=r"examples\.safetensors cannot be read"):
        examples.read(tmp_path)


@pytest.mark.parametrize(("shape", "classes"), [((8, 8), 2), ((8, 8, 3), 100)])
def test_softened_targets_show_small_probabilities_at_the_run_s_own_temperature_too(
    tmp_path, figures, written, shape, classes
):
    rng = np.random.default_rng(0)
    pixels = rng.integers(255, size=shape, dtype=np.uint8)
    teacher, student = 9 * rng.normal(size=(2, classes))
    example = Example(4, pixels, 1, teacher, student, "entropy 1.00 nats")
    names = ["$a$ <b>", *(f"class {i} of a very long and tedious name" for i in range(1, classes))]
    plot_softened([example], names, tmp_path, own=[3.0])
    panels = figures[0].axes[1:6]
    assert [axes.get_title() for axes in panels] == ["T = 1", "T = 2", "T = 3 (this run's)", "T = 4", "T = 8"]
    assert {axes.get_xscale() for axes in panels} == {"log"}
    lowest, highest = panels[2].get_xlim()
    assert lowest <= 1e-4 and highest == 1
    for axes, T in zip(panels, (1, 2, 3, 4, 8), strict=True):
        drawn = {s.get_label(): [] for s in axes.collections}
        for scatter in axes.collections:
            drawn[scatter.get_label()] += np.asarray(scatter.get_offsets())[:, 0].tolist()
        for role, z in (("teacher", teacher), ("student", student)):
            top = np.argsort(-teacher)[:8] if classes > 10 else range(classes)  # two places may be others'
            for p in np.maximum(softmax(z / T)[top], lowest):
                assert np.isclose(drawn[role], p).any(), (T, role)
            assert len(drawn[role]) == min(classes, 10)
    bold = [label.get_text() for label in panels[0].get_yticklabels() if label.get_fontweight() == "bold"]
    assert len(bold) == 1 and bold[0].startswith("class 1") and bold[0].endswith("name")
    assert "test image 4\nentropy 1.00 nats" in written(figures[0])


def test_a_card_has_the_true_class_first_and_every_network_s_probability(tmp_path, figures):
    p = {"teacher": [0.98, 0.02, 0.0], "baseline": [0.3, 0.7, 0.0], "student": [0.64, 0.002, 0.358]}
    card = Card(12, np.zeros((4, 4), np.uint8), 0, {name: np.array(of) for name, of in p.items()})
    plot_cards({"only the student is right": [card]}, ["cat", "dog", "cow"], tmp_path, "x")
    (below,) = figures[0].axes
    assert [text.get_text() for text in below.texts] == [
        "only the student is right", "test image 12", "cat", "0.98", "0.30", "0.64", "dog", "0.02", "0.70", "< 0.01"
    ]  # fmt: skip
    assert [bar.get_width() for bar in below.patches] == [0.98, 0.3, 0.64, 0.02, 0.7, 0.002]
    assert [to_hex(bar.get_facecolor()) for bar in below.patches[:3]] == [STYLE[name][0] for name in p]
    assert plot_cards({"none": []}, ["cat"], tmp_path, "y") is None


def test_the_page_shows_what_was_kept_with_how_it_was_chosen_and_how_many_there_are(tmp_path, figures, written):
    """The class 3 was left out, and its images have rows of their own, with the student's offset."""
    store, rng = tmp_path / "store", np.random.default_rng(1)
    folders = [made(store, "teacher", z=noisy(4, 0))]
    for role, sure in (("baseline", 1.5), ("student", 2.0)):
        folders += [made(store, role, s, z=noisy(sure, s), val_z=noisy(sure, 9 + s)) for s in range(2)]
    config = {"transfer": {"omit_classes": [3]}, "loss": {"kd": {"T": 20.0, "teacher_T": None}, "ce": {"weight": 1}}}
    comparison = Comparison(folders, record(folders, config=config))
    asked = Answers.of(comparison)
    assert asked.seed == 0 and asked.omitted == [3] and asked.offset is not None
    chosen = asked.choose()
    pixels = rng.integers(255, size=(len(examples.every(chosen)), 6, 6, 1), dtype=np.uint8)
    examples.write(tmp_path, chosen, pixels)
    blocks = image_blocks(comparison, tmp_path, tmp_path)
    right = [noisy(sure, 0).argmax(1) == LABELS for sure in (1.5, 2.0)]
    counts = [int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())]
    assert (
        f"only the student gets {counts[0]} of 100 test images right, and only the baseline {counts[1]};"
        in (blocks[CHANGED][0])
    )
    assert "With seed 0" in blocks[CHANGED][0] and "highest entropy" in blocks[SOFTENED][0]
    assert f"offset, chosen on validation, is {asked.offset:+.2f}" in blocks[MISSING][0]
    assert {block[1].file.name for block in blocks.values()} == {"softened.svg", "changed.svg", "missing.svg"}
    softened, changed, missing = map(written, figures)
    assert "T = 20 (this run's)" in softened
    assert f"only the student is right: {counts[0]} of 100 test images, 6 shown" in changed
    assert "never shown to baseline and student: class class 3" in missing and "student with offset" in missing


def test_a_run_of_before_shows_the_images_that_it_kept(tmp_path, figures, written):
    folders = trio(tmp_path / "store", [96, 95], [90, 91])
    old = {"index": np.array([4, 2]), "pixels": np.zeros((2, 8, 8, 1), np.uint8)}
    save_file(old, tmp_path / examples.FILE)
    blocks = image_blocks(Comparison(folders, record(folders)), tmp_path, tmp_path)
    assert blocks[SOFTENED][0].startswith("The answers are those of seed 0;") and not blocks[CHANGED]
    assert {"test image 4", "test image 2"} <= set(written(figures[0]))
