"""Teacher, baseline and student side by side, from folders of result files written here."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from kdrun.artifact import Damaged
from kdrun.results.comparison.comparison import Comparison
from kdrun.results.comparison.table import comparison_table
from kdrun.results.comparison.write import write_comparison
from tests.results.given import LABELS, LOST, artifact, compare, lane, logits, notes_of, point, record, trio


def fidelity(comparison, name="student"):
    row = next(row for row in comparison.rows if comparison.names[row] == name)
    return tuple(comparison.measured(row, key) for key in ("agreement", "kl_to_teacher"))


@pytest.fixture
def three(tmp_path):
    return trio(tmp_path, students=[93, 95, 94], baselines=[90, 91, 92])


def test_the_three_rows_pair_by_seed(three):
    comparison = compare(three)
    assert [row.role for row in comparison.rows] == ["teacher", "baseline", "student"]
    assert [(b.seed, s.seed) for b, s in lane(comparison).pairs] == [(0, 0), (1, 1), (2, 2)]
    assert lane(comparison).paired.mean == pytest.approx((0.03 + 0.04 + 0.02) / 3)
    assert (lane(comparison).paired.n, lane(comparison).paired.p) == (3, 0.25)
    assert lane(comparison).gap == pytest.approx((0.94 - 0.91) / (0.97 - 0.91))


def test_pairing_goes_by_seed_whatever_the_order_of_the_folders(three):
    assert lane(compare(three[::-1])).paired == lane(compare(three)).paired


def test_the_verdict_stands_first_in_the_table(three):
    assert comparison_table(compare(three)).title == (
        "Indicative gain: +3.00 points of test accuracy over the baseline (95% [+0.52, +5.48], p = 0.250, n = 3), 50% "
        "of the teacher–baseline gap closed; the interval leaves out 0, but with 3 seeds no exact test can go below "
        "p = 0.25: type seeds=6 or more."
    )


def test_the_table_shows_every_number_of_a_row(three):
    table = comparison_table(compare(three))
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert rows[2] == {
        "role": "student", "model": "small", "params": "16.8 K", "size": "70.1 kB", "train %": "99.00 ± 0.00",
        "val %": "90.00 ± 0.00", "test %": "94.00 ± 1.00", "Δ base": "+3.00", "gap %": "50", "agree %": "97.00 ± 1.00",
        "n": "3", "epoch": "27", "time": "12.3 s",
    }  # fmt: skip
    assert (rows[0]["test %"], rows[0]["Δ base"], rows[0]["n"]) == ("97.00", "+6.00", "1")
    assert (rows[1]["test %"], rows[1]["Δ base"], rows[1]["gap %"]) == ("91.00 ± 1.00", "–", "–")


def test_agreement_and_kl_are_measured_against_the_teachers_logits(three):
    agreed, kl = fidelity(compare(three))
    teacher = logits(97).argmax(1)
    assert agreed.mean == pytest.approx(np.mean([accuracy_score(teacher, logits(r).argmax(1)) for r in (93, 95, 94)]))
    # where both choose the same the KL is 0; elsewhere two of four logits are exchanged: p = softmax(4, 0, 0, 0)
    p = np.exp([4, 0]) / (np.exp(4) + 3)
    assert kl.mean == pytest.approx(0.03 * 4 * (p[0] - p[1]), rel=1e-6)


def test_each_student_is_held_against_its_own_teacher(tmp_path):
    teachers = [artifact(tmp_path, "teacher", seed, right=right) for seed, right in enumerate((90, 80))]
    students = [
        artifact(tmp_path, "student", seed, right=right, teachers=[teachers[seed].name[-12:]])
        for seed, right in enumerate((90, 80))  # each copies its own teacher's answers
    ]
    agreed, kl = fidelity(compare([*teachers, *students]))
    assert (agreed.mean, agreed.n) == (1.0, 2) and kl.mean == pytest.approx(0)


def test_damaged_logits_are_named(three, tmp_path):
    (three[0] / "logits.safetensors").write_bytes(b"no")
    with pytest.raises(Damaged, match=r"is damaged \(logits\.safetensors\)"):
        compare(three)


def test_the_json_holds_the_selected_and_the_last_epoch_of_every_seed(tmp_path):
    folders = trio(tmp_path, [93, 95], [90, 91], last=0.89)
    write_comparison(tmp_path, Comparison(folders, record(folders, overrides=["T=4"])))
    data = json.loads((tmp_path / "comparison.json").read_text())
    student = data["rows"][2]
    assert student["test_accuracy"] == {"mean": 0.94, "std": pytest.approx(0.02 / 2**0.5), "n": 2}
    assert student["last_test_accuracy"] == {"mean": 0.89, "std": 0.0, "n": 2}
    assert [p["selected"]["test"]["accuracy"] for p in student["points"]] == [0.93, 0.95]
    assert [(p["selected"]["epoch"], p["last"]["epoch"]) for p in student["points"]] == [(27, 30)] * 2
    assert [p["last"]["test"]["accuracy"] for p in student["points"]] == [0.89, 0.89]
    assert [p["fingerprint"] for p in student["points"]] == [f.name[-12:] for f in folders[3:]]
    assert student["points"][0]["command"] == "kdrun distill seed=0"
    assert (data["command"], data["overrides"]) == ("kdrun distill T=4", ["T=4"])
    assert data["paired"]["mean"] == pytest.approx(0.035)
    assert data["verdict"] == data["table"]["title"]


def test_the_four_files_say_the_same(three, tmp_path):
    text = write_comparison(tmp_path, Comparison(three, record(three)))
    assert "94.00 ± 1.00" in (tmp_path / "comparison.md").read_text()
    assert r"94.00 $\pm$ 1.00" in (tmp_path / "comparison.tex").read_text()
    assert "94.00" in text
    heading, *rows = csv.reader((tmp_path / "comparison.csv").open())
    student = dict(zip(heading, rows[2], strict=True))
    assert (float(student["test %"]), float(student["test % std"])) == (94.0, 1.0)
    assert float(student["params"]) == 16842
    assert all(f.name[-12:] in (tmp_path / "comparison.md").read_text() for f in three)


def test_the_notes_name_seeds_epochs_and_the_one_teacher(three):
    notes = notes_of(compare(three)).splitlines()
    assert notes == [
        "Δ base, paired by seed (same initial weights, same batches): +3.00, 95% t-interval [+0.52, +5.48]; "
        "exact sign-flip p = 0.250 (the smallest possible with n = 3: 0.25)",
        "mean ± sample standard deviation over seeds 0, 1, 2; time: mean of one training",
        "one teacher for all seeds: the intervals do not include its training noise",
        "100 test images of digits; epoch chosen on validation, tested at that epoch; at the last epoch: "
        "teacher 97.00; baseline 91.00 ± 1.00; student 94.00 ± 1.00",
        "student: L = CE of student",
    ]


def test_a_diverged_seed_is_shown_and_its_pair_left_out(tmp_path):
    comparison = compare(trio(tmp_path, [93, 94, 95, None, 96, 97], [90, 91, 92, 92, 92, 93]))
    table = comparison_table(comparison)
    assert dict(zip(table.columns, table.rows[2], strict=True))["n"] == "5 of 6"
    assert [s.seed for _, s in lane(comparison).pairs] == [0, 1, 2, 4, 5]
    assert "(5 of 6, 1 diverged)" in comparison.verdict()
    assert comparison.verdict().startswith("Indicative gain:")
    assert "student: 5 of 6, 1 diverged: seed 3: epoch 1, batch 2: ce is nan; there was no good epoch" in table.notes


def test_six_pairs_and_one_lost_are_indicative_at_most(tmp_path):
    whole = trio(tmp_path / "a", [93, 94, 95, 96, 96, 97, 98], [90, 91, 92, 92, 92, 93, 93], teacher=99)
    assert compare(whole).verdict().startswith("Gain:")
    lost = trio(tmp_path / "b", [93, 94, 95, 96, 96, 97, 98], [90, 91, None, 92, 92, 93, 93], teacher=99)
    assert compare(lost).verdict().startswith("Indicative gain:")
    assert compare(lost).verdict().endswith("(6 of 7, 1 diverged); indicative at most, since a seed was lost.")


def test_where_no_seed_finished_none_is_averaged_and_one_reason_is_said_once(tmp_path):
    comparison = compare(trio(tmp_path, [None] * 3, [None] * 3))
    notes = notes_of(comparison)
    assert comparison.verdict() == "Not tested: no pair of baseline and student was finished (0 of 3, 6 diverged)."
    assert "seeds 0, 1, 2: epoch 1, batch 2" in notes
    assert notes.count("ce is nan") == 2  # for the baseline, and for the student
    assert "standard deviation" not in notes
    assert "seed 0" not in notes.splitlines()
    assert [row[6] for row in comparison_table(comparison).rows] == ["97.00", "3 diverged", "3 diverged"]


def test_different_reasons_stand_apart(tmp_path):
    folders = [artifact(tmp_path, "baseline", s, status="diverged", reason=r) for s, r in enumerate("aba")]
    assert "baseline: 0 of 3, 3 diverged: seeds 0, 2: a; seed 1: b" in notes_of(compare(folders))
    assert compare(folders).verdict() == "baseline small: no results, 3 diverged."
    assert not any("standard deviation" in note for note in comparison_table(compare(folders)).notes)


def test_without_labels_there_is_no_baseline(tmp_path):
    folders = [artifact(tmp_path, "teacher", right=97), artifact(tmp_path, "student", right=93)]
    comparison = compare(folders, config={"transfer": {"labels": False, "fraction": 0.5, "omit_classes": [3]}})
    assert comparison.verdict() == (
        "Not tested: without labels there is no baseline to compare with; student: 93.00% of the test images right."
    )
    assert (lane(comparison).paired, lane(comparison).single, lane(comparison).gap) == (None, None, None)
    assert (
        "transfer set: 50% of the training images, without class 3, without labels (so there is no baseline, and "
        "no training accuracy)"
    ) in notes_of(comparison)


def test_a_teacher_alone_is_reported_without_a_verdict(tmp_path):
    assert compare([artifact(tmp_path, "teacher", right=97)]).verdict() == ("teacher big: test accuracy 97.00%.")


def test_one_seed_has_no_spread_and_test_set_noise_is_called_so(tmp_path):
    comparison = compare(trio(tmp_path, [94], [90]))
    notes = notes_of(comparison)
    assert "±" not in notes and "±" not in str(comparison_table(comparison).rows)
    assert notes.splitlines()[0].startswith(
        "test-set noise for these two models, not training noise: only the student is right on 4 images, "
        "only the baseline on 0, McNemar p = 0.125; paired bootstrap 95% [+1.00, "
    )
    assert "seed 0" in notes.splitlines()
    assert comparison.verdict().startswith("Not tested: +4.00 points of test accuracy over the baseline, 57% of")


def test_with_the_teacher_weighing_nothing_the_student_is_the_baseline(tmp_path):
    baselines = [artifact(tmp_path, "baseline", seed, right=90 + seed) for seed in range(3)]
    known = record([*baselines, *baselines])
    for used in known["artifacts"][3:]:
        used["role"] = "student"
    comparison = Comparison([*baselines, *baselines], known)
    assert comparison.verdict() == (
        "Not tested: the student is the baseline, since the teacher's weight is 0; both: "
        "91.00 ± 1.00% of the test images right."
    )
    assert "t-interval" not in notes_of(comparison) and "sign-flip" not in notes_of(comparison)


def test_equal_differences_are_said_to_be_equal(tmp_path):
    notes = notes_of(compare(trio(tmp_path, [92, 93, 94], [90, 91, 92])))
    assert "same batches): +2.00, all differences equal; exact sign-flip p = 0.250" in notes


PAPER = {"protocol": "paper", "best_test": {"epoch": 12, "test": {"accuracy": 0.96, "nll": 0.1}}}


def test_under_the_papers_protocol_the_best_test_epoch_is_called_optimistic(tmp_path):
    folders = [artifact(tmp_path, role, right=90, val=None, **PAPER) for role in ("teacher", "baseline", "student")]
    notes = notes_of(compare(folders))
    assert "100 test images of digits; last epoch, as the papers report it\n" in notes
    assert "best epoch chosen on test, optimistic: teacher 96.00; baseline 96.00; student 96.00" in notes
    assert "chosen on validation" not in notes


def test_a_teacher_that_was_chosen_otherwise_is_told_apart(tmp_path):
    folders = [artifact(tmp_path, "teacher", right=97, last=0.95)]
    folders += [artifact(tmp_path, role, right=90, val=None, **PAPER) for role in ("baseline", "student")]
    notes = notes_of(compare(folders))
    assert (
        "100 test images of digits; teacher: epoch chosen on validation, tested at that epoch; baseline and student: "
        "last epoch, as the papers report it; at the last epoch: teacher 95.00\n"
    ) in notes
    assert "optimistic: baseline 96.00; student 96.00" in notes


def test_weights_from_a_file_have_no_epoch(tmp_path):
    adopted = {"selected": point(0, 0.9, 0.9, 0.97), "seconds": 0.0}
    folders = [artifact(tmp_path, "teacher", right=97, **adopted), artifact(tmp_path, "baseline", right=90)]
    comparison = compare(folders)
    assert "teacher: weights from a file, not trained here; baseline: epoch chosen on validation" in notes_of(
        comparison
    )
    assert comparison_table(comparison).rows[0][-2:] == ["–", "–"]


def test_without_a_held_out_part_the_last_epoch_is_named(tmp_path):
    notes = notes_of(compare([artifact(tmp_path, "baseline", right=90, val=None)]))
    assert "last epoch (there is no validation data to choose one)" in notes


@pytest.mark.parametrize("other", [{"dataset": "mnist"}, {"labels": np.roll(LABELS, 1)}, {"labels": LABELS[:50]}])
def test_a_teacher_measured_on_other_images_is_not_compared(tmp_path, other):
    folders = trio(tmp_path, [93], [90])[1:]
    comparison = compare([artifact(tmp_path, "teacher", right=45, **other), *folders])
    table = comparison_table(comparison)
    assert lane(comparison).gap is None and fidelity(comparison) == (None, None)
    assert "gap % and agree % are undefined: the teacher was measured on different test images" in table.notes
    assert dict(zip(table.columns, table.rows[0], strict=True))["Δ base"] == "–"


def test_trainings_in_different_surroundings_are_pointed_out(tmp_path):
    folders = [artifact(tmp_path, "baseline", 0), artifact(tmp_path, "baseline", 1, device="cuda", threads=2)]
    table = comparison_table(compare(folders))
    assert "not all were trained in the same environment: comparison.md lists versions and devices" in table.notes
    assert (
        f"trained with kdrun 0.1.0, torch 2.11.0, python 3.11.9; cuda, 2 threads, fp32 ({folders[1].name[-12:]})"
        in (table.sources)
    )
    assert notes_of(compare(folders[:1])).count("surroundings") == 0


def test_damaged_or_no_artifacts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is nothing to compare"):
        Comparison([], {})
    folder = artifact(tmp_path, "baseline")
    (folder / "result.json").write_text("{")
    with pytest.raises(Damaged, match=rf"{folder.name} is damaged \(result\.json: Expecting"):
        Comparison([folder], {})


def test_names_and_reasons_of_others_act_nowhere(tmp_path):
    reason = "boom \x1b[31m<script>|x"
    folders = [
        artifact(tmp_path, "baseline", 0, model="=cmd()|<b>"),
        artifact(tmp_path, "baseline", 1, model="=cmd()|<b>", **LOST | {"reason": reason}),
    ]
    text = write_comparison(tmp_path, Comparison(folders, record(folders)))
    files = {kind: (tmp_path / f"comparison.{kind}").read_text() for kind in ("md", "csv", "tex")}
    assert "\x1b" not in text + "".join(files.values())
    assert "<script" not in files["md"] and r"=cmd()\|&lt;b>" in files["md"]
    assert list(csv.reader(files["csv"].splitlines()))[1][1] == "'=cmd()|<b>"
    assert r"=cmd()$|$$<$b$>$" in files["tex"]
