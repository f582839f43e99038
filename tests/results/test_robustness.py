"""Robustness of a run's networks: the table, the pairs, and a verdict that says no more than the numbers do."""

import csv
import io
import json

import pytest

from kdrun.config import Robustness
from kdrun.measuring.cache import cache
from kdrun.measuring.conditions import levels, settings
from kdrun.results import evidence, statistics
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.report.run import _robustness
from kdrun.results.robustness.robustness import RobustnessComparison, lines, measured_robustness
from kdrun.results.robustness.table import robustness_table, write_robustness
from kdrun.results.robustness.verdict import judgement
from tests.results.given import LOST, artifact, record

HOW = Robustness(
    corruptions=["blur", "shot_noise"], severities=[1, 3], fgsm=[2.0, 8.0], pgd=[8.0], pgd_steps=5, attack_images=40
)
CONTENT = ("complete", "device", "images", "accuracy")
COUNTS = {"corruptions": 100, "attacks": 40, "test": 100}


def measured(folder, clean, corrupted, attacked=0.5, *, how=HOW, complete=True, before=None, data=None, counts=COUNTS):
    """Keep accuracies beside an artifact: `corrupted` at severity 1, 0.1 less at 3; `attacked` at every ε."""
    accuracy = {"clean": {"0": clean}}
    accuracy |= {
        name: {level: corrupted - 0.1 * (level == "3") for level in levels(name, how)} for name in how.corruptions
    }
    for name in ("fgsm", "pgd"):
        accuracy[name] = {level: attacked if level != "0" else before or clean for level in levels(name, how)}
    if not complete:
        del accuracy["pgd"]
    content = {"complete": complete, "device": "cpu", "images": counts, "accuracy": accuracy}
    cache(folder, "robustness", settings(how, data), content)
    return folder


def run_of(store, gains, *, drop=0.0, cast=(), teacher=True, **more):
    """Make a run with a baseline and a student for each seed; the student gains so much on corrupted images.

    Its clean accuracy gains as much, but for `drop`, which it loses less.
    """
    folders = [measured(artifact(store, "teacher"), 0.95, 0.8)] if teacher else []
    for seed, gain in enumerate(gains):
        noise = 0.002 * (seed % 3)
        folders.append(measured(artifact(store, "baseline", seed), 0.9, 0.7 + noise, before=0.9))
        folders.append(measured(artifact(store, "student", seed), 0.9 + gain - drop, 0.7 + noise + gain, 0.5 + gain))
    return folders, record(folders, cast=cast, **more)


def comparison(*args, **kwargs):
    folders, known = run_of(*args, **kwargs)
    return RobustnessComparison(folders, known, HOW)


def table(*args, **kwargs):
    rows = robustness_table(comparison(*args, **kwargs))
    return {row[0]: dict(zip(rows.columns, row, strict=True)) for row in rows.rows}


def test_lines_are_means_over_severities_and_distances_to_the_same_images_as_they_are(tmp_path):
    accuracy = {
        "clean": {"0": 0.9}, "blur": {"1": 0.8, "3": 0.6}, "shot_noise": {"1": 0.5, "3": 0.3},
        "fgsm": {"0": 0.95, "2": 0.7, "8": 0.2}, "pgd": {"0": 0.95, "8": 0.0},
    }  # fmt: skip
    assert lines(accuracy, HOW) == pytest.approx({
        "clean": 0.9, "corrupted, mean": 0.55, "lost to corruptions": 0.35, "blur": 0.7, "shot noise": 0.4,
        "clean, attacked images": 0.95, "attacked, mean": 0.3, "lost to attacks": 0.65, "FGSM ε=2": 0.7,
        "FGSM ε=8": 0.2, "PGD ε=8": 0.0,
    })  # fmt: skip


def test_corruptions_count_alike_however_many_severities_and_either_kind_can_be_left_out():
    only = Robustness(corruptions=["blur"], severities=[2], fgsm=[], pgd=[])
    assert list(lines({"clean": {"0": 0.9}, "blur": {"2": 0.6}}, only)) == [
        "clean", "corrupted, mean", "lost to corruptions", "blur"
    ]  # fmt: skip
    attacks = Robustness(corruptions=[], fgsm=[1.0], pgd=[])
    assert lines({"fgsm": {"0": 0.9, "1": 0.4}}, attacks)["lost to attacks"] == pytest.approx(0.5)
    same = Robustness(corruptions=["blur"], severities=[2], fgsm=[1.0], pgd=[], attack_images=None)
    result = lines({"clean": {"0": 0.9}, "blur": {"2": 0.6}, "fgsm": {"0": 0.9, "1": 0.4}}, same)
    assert "clean, attacked images" not in result and result["clean"] == 0.9  # all images in both: the same ones


def test_the_table_has_a_line_for_each_change_and_pairs_by_seed(tmp_path):
    gains = [0.02, 0.03, 0.04]
    rows = table(tmp_path, gains)
    corrupted = rows["corrupted, mean"]
    paired = statistics.paired(gains)
    assert corrupted["teacher %"] == "75.00" and corrupted["baseline %"] == "65.20 ± 0.20"
    assert corrupted["Δ base"] == "+3.00"
    assert corrupted["95%"] == evidence.interval(paired.low, paired.high) == "[+0.52, +5.48]"
    assert rows["blur"]["student %"].startswith("68.20 ±")
    assert rows["lost to corruptions"]["Δ base"] in ("+0.00", "-0.00")


def test_a_seed_that_diverged_or_was_not_measured_pairs_nothing_and_is_named(tmp_path):
    folders, _ = run_of(tmp_path, [0.02, 0.03, 0.04])
    lost = artifact(tmp_path, "student", 3, **LOST)
    base = measured(artifact(tmp_path, "baseline", 3), 0.9, 0.1)
    unfinished = measured(artifact(tmp_path, "baseline", 4), 0.9, 0.1, complete=False)
    folders += [lost, base, unfinished]
    comparison = RobustnessComparison(folders, record(folders), HOW)
    table = robustness_table(comparison)
    by_line = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert by_line["corrupted, mean"]["Δ base"] == "+3.00"
    assert any("not measured: 1 of baseline, 1 of student" in note for note in table.notes)
    assert "1 diverged" in str(comparison.verdict())


def test_what_was_measured_under_other_settings_is_not_taken(tmp_path):
    folders, known = run_of(tmp_path, [0.02])
    other = Robustness(**vars(HOW) | {"pgd_steps": 6})
    assert not RobustnessComparison(folders, known, other).measurements
    with pytest.raises(ValueError, match="robustness=standard"):
        write_robustness(tmp_path, folders, known, other)


def test_several_students_are_judged_each_against_its_own_baseline(tmp_path):
    folders, cast = [], []
    for lane, gain in (("small", 0.05), ("tiny", -0.05)):
        for seed in range(3):
            own = gain + 0.001 * seed
            folders.append(measured(artifact(tmp_path, "baseline", seed, model=lane), 0.9, 0.7))
            folders.append(measured(artifact(tmp_path, "student", seed, model=lane), 0.9, 0.7 + own))
            cast += [("baseline", "baseline", lane), ("student", "student", lane)]
    comparison = RobustnessComparison(folders, record(folders, cast=cast), HOW)
    table = robustness_table(comparison)
    assert table.columns[1:] == [
        "baseline small %", "student small %", "baseline tiny %", "student tiny %",
        "Δ small", "95% small", "Δ tiny", "95% tiny",
    ]  # fmt: skip
    sentences = list(comparison.verdict().parts)
    assert sentences[0].startswith("small: Indicative, more robust to corruptions")
    assert sentences[2].startswith("tiny: Indicative, less robust to corruptions")


def test_a_run_without_student_or_baseline_says_what_can_be_said(tmp_path):
    teacher = [measured(artifact(tmp_path, "teacher"), 0.95, 0.8)]
    sentence = str(RobustnessComparison(teacher, record(teacher), HOW).verdict())
    assert sentence.startswith("Under corruptions, teacher: mean accuracy 75.00%, against 95.00% on clean images.")
    student = [measured(artifact(tmp_path, "student"), 0.95, 0.8)]
    assert "there is no baseline" in str(RobustnessComparison(student, record(student), HOW).verdict())
    twice = [measured(artifact(tmp_path, "baseline"), 0.95, 0.8)] * 2
    same = record(twice, cast=[("baseline",), ("student",)])
    assert "the student is the baseline" in str(RobustnessComparison(twice, same, HOW).verdict())


def pair(*values):
    return statistics.paired(values)


SIX = (0.02, 0.03, 0.025, 0.03, 0.028, 0.022)
POINTS = "to corruptions: +2.58 points"
NIL = (0.01, -0.01, 0.012, -0.011, 0.01, -0.012)


def negative(values):
    return tuple(-v for v in values)


@pytest.mark.parametrize(
    ("changed", "drop", "gone", "begins", "ends"),
    [
        (SIX, negative(SIX), "", f"More robust {POINTS}", "so clean accuracy does not explain it alone"),
        (SIX, NIL, "", f"More robust {POINTS}", "so clean accuracy may explain it"),
        (SIX, SIX, "", f"More robust {POINTS}", "so clean accuracy explains it"),
        (negative(SIX), SIX, "", "Less robust to corruptions: -2.58 points", "does not explain it alone"),
        (SIX, NIL, "1 diverged", f"Indicative, more robust {POINTS}", "so clean accuracy may explain it"),
        (NIL, SIX, "", "No significant difference in robustness to corruptions: -", "2.58 points more than the base"),
        (SIX[:3], negative(SIX[:3]), "", "Indicative, more robust to", "less than the baseline, indicative ("),
    ],
)  # fmt: skip
def test_the_verdict_says_what_is_shown_and_whether_clean_accuracy_explains_it(changed, drop, gone, begins, ends):
    first, second = judgement("corruptions", pair(*changed), pair(*NIL[: len(changed)]), pair(*drop), gone)
    assert first.startswith(begins) and ends in second
    assert ("no exact test can go below" in first) == (len(changed) < 6)
    if begins.startswith("Robustness"):
        assert "explain" not in second


def test_one_seed_or_none_shows_nothing():
    one = pair(0.1)
    assert judgement("attacks", one, one, one) == [
        "Robustness to attacks not tested: +10.00 points of mean accuracy over the baseline; one seed says nothing "
        "about training noise."
    ]
    assert "no pair" in judgement("attacks", None, None, None, "2 oom")[0]


def test_files_hold_exact_numbers_every_strength_and_the_picture(tmp_path):
    folders, known = run_of(tmp_path / "store", [0.02, 0.03, 0.04])
    target = tmp_path / "out"
    target.mkdir()
    text = write_robustness(target, folders, known, HOW, command="kdrun evaluate x robustness=quick")
    names = {"robustness.md", "robustness.csv", "robustness.json", "robustness.tex", "robustness.svg"}
    names |= {"robustness-narrow.svg"}
    assert {p.name for p in target.iterdir()} == names
    whole = json.loads((target / "robustness.json").read_text())
    assert whole["verdict"].split(".")[0] in " ".join(text.split())
    student = next(row for row in whole["rows"] if row["role"] == "student")
    assert student["points"][2]["accuracy"]["blur"]["3"] == pytest.approx(0.7 + 0.004 + 0.04 - 0.1)
    assert student["lines"]["blur"]["n"] == 3
    assert whole["differences"][0]["lines"]["corrupted, mean"]["mean"] == pytest.approx(0.03)
    read = list(csv.DictReader(io.StringIO((target / "robustness.csv").read_text())))
    assert float(read[1]["student % std"]) == pytest.approx(100 * statistics.summary([0.67, 0.682, 0.694]).std)
    assert "kdrun evaluate x robustness=quick" in (target / "robustness.md").read_text()


def test_of_several_students_each_has_a_picture(tmp_path):
    folders, cast = [], []
    for lane in ("small", "tiny"):
        folders.append(measured(artifact(tmp_path / "store", "baseline", 0, model=lane), 0.9, 0.7))
        folders.append(measured(artifact(tmp_path / "store", "student", 0, model=lane), 0.9, 0.72))
        cast += [("baseline", "baseline", lane), ("student", "student", lane)]
    (tmp_path / "out").mkdir()
    write_robustness(tmp_path / "out", folders, record(folders, cast=cast), HOW)
    assert {"robustness-small.svg", "robustness-tiny.svg"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_what_was_measured_on_other_test_images_is_not_taken(tmp_path):
    """A teacher of another run, measured there on its own 100 images, beside students that were asked about 40."""
    teacher = measured(artifact(tmp_path, "teacher", data="its own"), 0.95, 0.8, data="its own")
    few = {"corruptions": 40, "attacks": 40, "test": 40}
    small = [measured(artifact(tmp_path, role, data="here"), 0.9, 0.7, data="here", counts=few)
             for role in ("baseline", "student")]  # fmt: skip
    folders = [teacher, *small]
    comparison = RobustnessComparison(folders, record(folders), HOW)
    assert list(comparison.measurements) == small
    notes = robustness_table(comparison).notes
    assert notes[0].startswith("40 test images (all), the same corrupted ones for all networks")
    assert "not measured: 1 of teacher (trained on other data)" in notes
    measured(teacher, 0.9, 0.75, data="here", counts=few)
    assert list(RobustnessComparison(folders, record(folders), HOW).measurements) == folders
    assert RobustnessComparison([teacher], record([teacher]), HOW).summary(comparison.rows[0], "clean").mean == 0.95


def test_of_several_measurements_a_run_shows_what_it_asked_for_then_what_most_have_then_the_newest(tmp_path):
    """The teacher is shared with a run that was measured last, under other settings."""
    quick, other, last = (Robustness(**vars(HOW) | {"pgd_steps": steps}) for steps in (6, 7, 8))
    folders = [artifact(tmp_path, role) for role in ("teacher", "baseline", "student")]
    assert measured_robustness(folders, record(folders)) is None
    for how, whose in ((HOW, folders[1:]), (quick, folders), (other, folders), (last, folders[:1])):
        for folder in whose:
            measured(folder, 0.9, 0.7, how=how)
    assert measured_robustness(folders, record(folders)).how == other
    request = record(folders, config={"robustness": vars(HOW)})
    assert (
        measured_robustness(folders, request).how == HOW
        and len(measured_robustness(folders, request).measurements) == 2
    )
    never = record(folders, config={"robustness": vars(HOW) | {"pgd_steps": 9}})
    assert measured_robustness(folders, never).how == other


def test_what_another_version_measured_is_as_good_as_not_measured(tmp_path):
    folders, known = run_of(tmp_path, [0.02])
    for file in list(tmp_path.glob("*/measured/*.json")):
        whole = json.loads(file.read_text())
        file.unlink()
        cache(file.parents[1], "robustness", whole["settings"] | {"patches": 3}, {k: whole[k] for k in CONTENT})
    assert measured_robustness(folders, known) is None
    measured(folders[0], 0.95, 0.8)
    assert list(measured_robustness(folders, known).measurements) == folders[:1]


def test_a_measurement_that_was_cut_down_is_as_good_as_none(tmp_path):
    folders, known = run_of(tmp_path, [0.02])
    cut = {"settings", "created"}
    for k, file in enumerate(sorted(tmp_path.glob("*/measured/*.json"))):
        whole = json.loads(file.read_text())
        less = {key: whole[key] for key in cut} if k else whole | {"accuracy": {"clean": {"0": 0.9}}}
        file.write_text(json.dumps(less))
    assert measured_robustness(folders, known) is None and not RobustnessComparison(folders, known, HOW).measurements


def test_a_run_s_page_shows_its_own_measurement_and_stands_where_there_is_none(tmp_path):
    folders, known = run_of(tmp_path / "store", [0.02])
    later = measured(folders[0], 0.95, 0.8, how=Robustness(**vars(HOW) | {"pgd_steps": 9}))
    cache(later, "robustness", settings(HOW, None) | {"patches": 3}, {k: {} for k in CONTENT})
    assert "student %" in _robustness(Comparison(folders, known), tmp_path)[0].columns
    for file in list(tmp_path.glob("store/*/measured/*.json")):
        file.write_text("{}")
    assert _robustness(Comparison(folders, known), tmp_path) == []
