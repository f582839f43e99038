"""Several teachers and the ensemble that students are held against, from stored logits; numbers by hand."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kdrun.results.comparison.comparison import Comparison
from tests.results.given import LABELS, artifact, cells, column, noisy, notes_of, record, seeds_of, written


@pytest.fixture
def parts(tmp_path):
    teachers = [
        artifact(tmp_path, "teacher", k, model=model, z=noisy(2, k), val_z=noisy(2, 10 + k))
        for k, model in enumerate(("a", "b", "c"))
    ]
    small = [*seeds_of(tmp_path, "baseline", [70, 72, 74]), *seeds_of(tmp_path, "student", [76, 79, 79])]
    return teachers, small


def with_teachers(parts, weights=(), cast=()):
    folders = [*parts[0], *parts[1]]
    return Comparison(folders, record(folders, ensemble={"teachers": list(weights)}, cast=cast))


def test_each_has_a_row_and_their_ensemble_follows(parts):
    rows = cells(with_teachers(parts))
    assert [(row["role"], row["model"]) for row in rows] == [
        ("teacher", "a"), ("teacher", "b"), ("teacher", "c"), ("ensemble", "3 teachers"),
        ("baseline", "small"), ("student", "small"),
    ]  # fmt: skip
    assert {key: rows[3][key] for key in ("params", "size", "train %", "n", "epoch", "time", "agree %")} == {
        "params": "50.5 K", "size": "210.3 kB", "train %": "–", "n": "1", "epoch": "–", "time": "–", "agree %": "–"
    }  # fmt: skip


@pytest.mark.parametrize("weights", [(), (2.0, 1.0, 1.0)])
def test_the_ensemble_averages_probabilities_on_validation_and_test(parts, weights):
    comparison = with_teachers(parts, weights).towards
    shares = np.array(weights or (1, 1, 1)) / sum(weights or (1, 1, 1))
    for part, first in (("test", 0), ("val", 10)):
        p = sum(w * softmax(noisy(2, first + k).astype(float), axis=1) for k, w in enumerate(shares))
        assert comparison.summary(part).mean == (p.argmax(1) == LABELS).mean()
        assert comparison.summary(part, "nll").mean == pytest.approx(-np.log(p[np.arange(100), LABELS]).mean())
    assert comparison.summary("test").n == 1 and comparison.summary("train") is None


def test_students_are_held_against_the_ensemble(parts):
    comparison = with_teachers(parts)
    p = sum(softmax(noisy(2, k).astype(float), axis=1) for k in range(3)) / 3
    together = (p.argmax(1) == LABELS).mean()
    (lane,) = comparison.lanes
    assert lane.gap == pytest.approx((0.78 - 0.72) / (together - 0.72))
    assert f"{100 * lane.gap:.0f}% of the ensemble–baseline gap closed" in comparison.verdict()
    agreed, kl = (
        comparison.measured(comparison.rows[1], key) for key in ("agreement", "kl_to_teacher")
    )  # of the second teacher
    log_q = log_softmax(noisy(2, 1).astype(float), axis=1)
    assert agreed.mean == (p.argmax(1) == log_q.argmax(1)).mean()
    assert kl.mean == pytest.approx((p * (np.log(p) - log_q)).sum(1).mean())
    assert column(comparison, "Δ base")[3] == f"{100 * (together - 0.72):+.2f}"


def test_the_notes_say_what_the_gap_is_measured_to_and_that_the_teachers_are_fixed(parts):
    equal, weighted = (notes_of(with_teachers(parts, weights)) for weights in ((), (2.0, 1.0, 1.0)))
    measured = "; gap % and agree % refer to it"
    assert f"ensemble: mean of the teachers' probabilities at T=1{measured}\n" in equal
    assert f"ensemble: mean of the teachers' probabilities at T=1, weighted 0.5, 0.25, 0.25{measured}\n" in weighted
    assert "one set of teachers for all seeds: the intervals do not include their training noise" in equal
    assert "at the last epoch: teacher a " in equal and "; teacher c " in equal


def test_weights_for_another_number_of_teachers_are_refused(parts):
    with pytest.raises(ValueError, match="2 weights were given for 3 teachers"):
        with_teachers(parts, (1.0, 2.0))


def test_the_same_network_twice_goes_by_its_label(tmp_path):
    teachers = [artifact(tmp_path, "teacher", seed, right=90 + seed) for seed in (0, 1)]
    cast = [("teacher",), ("teacher", "teacher second"), ("baseline",), ("student",)]
    small = [artifact(tmp_path, role, right=80) for role in ("baseline", "student")]
    comparison = with_teachers((teachers, small), cast=cast)
    assert column(comparison, "role") == ["teacher", "teacher second", "ensemble", "baseline", "student"]
    assert "teacher 90.00; teacher second 91.00; baseline 80.00" in notes_of(comparison)


def test_without_validation_images_the_ensemble_has_no_number_there(tmp_path):
    teachers = [artifact(tmp_path, "teacher", model=model, right=90, val=None) for model in "ab"]
    assert cells(Comparison(teachers, record(teachers)))[2]["val %"] == "–"


def test_teachers_measured_on_different_images_make_no_ensemble(tmp_path):
    teachers = [artifact(tmp_path, "teacher", model=model, dataset=model) for model in "ab"]
    small = [artifact(tmp_path, role, right=80) for role in ("baseline", "student")]
    comparison = with_teachers((teachers, small))
    assert column(comparison, "role") == ["teacher", "teacher", "baseline", "student"]
    assert (comparison.lanes[0].gap, column(comparison, "agree %")) == (None, ["–"] * 4)
    assert "undefined: the teachers were not all measured on the same test images" in notes_of(comparison)


def test_teachers_on_other_images_than_the_students_are_not_held_against_them(tmp_path):
    teachers = [artifact(tmp_path, "teacher", model=model, dataset="mnist") for model in "ab"]
    small = [artifact(tmp_path, role, right=80) for role in ("baseline", "student")]
    comparison = with_teachers((teachers, small))
    assert "undefined: the teachers were measured on different test images" in notes_of(comparison)
    assert "refer to it" not in notes_of(comparison)


def test_an_ensemble_no_better_than_the_baseline_leaves_no_gap(tmp_path):
    teachers = [artifact(tmp_path, "teacher", model=model, right=80) for model in "ab"]
    small = [artifact(tmp_path, role, right=80) for role in ("baseline", "student")]
    assert "gap % is undefined: the ensemble is not better than the baseline" in notes_of(
        with_teachers((teachers, small))
    )


def test_the_json_names_the_rows_and_the_parts(parts, tmp_path):
    folders = [*parts[0], *parts[1]]
    data = written(tmp_path, folders, record(folders, ensemble={"teachers": [2.0, 1.0, 1.0]}))
    assert [row["name"] for row in data["rows"]] == [
        "teacher a", "teacher b", "teacher c", "ensemble", "baseline", "student"
    ]  # fmt: skip
    ensemble = data["rows"][3]
    assert (ensemble["role"], ensemble["ensemble_of"], ensemble["n"]) == ("ensemble", "teacher", 1)
    prints = [folder.name[-12:] for folder in parts[0]]
    assert ensemble["points"][0]["fingerprint"] == "+".join(f"{w}·{p}" for w, p in zip("211", prints, strict=True))
    assert ensemble["points"][0]["weights"] == [2.0, 1.0, 1.0]
