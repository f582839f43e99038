"""Collecting runs: listed, side by side, and all in one table."""

import csv
import json
import shutil

import pytest

from kdrun.results.collect import brief, collected, compare_runs, write_report
from kdrun.results.overview import list_runs
from kdrun.verbs.report import short_labels
from tests.results.given import FIRST, SECOND, SWEEP, artifact, changed, reported, run, trio, unsealed


def test_two_runs_differ_in_settings_specs_and_numbers(outputs):
    table = compare_runs(FIRST, "latest", outputs)
    assert table.columns == ["what differs", FIRST, SECOND]
    rows = {row[0]: tuple(row[1:]) for row in table.rows}
    assert rows["T"] == ("4", "8")
    assert rows["device"] == ("–", "cpu")
    assert not {"recipe.lr", "recipe.epochs", "outputs"} & set(rows)
    assert rows["student test %"] == ("94.00 ± 1.00", "94.00")
    assert rows["teacher test %"] == ("97.00", "96.00")
    assert rows["Δ base"] == ("+3.00", "+4.00")
    assert "teacher: a different training" in rows


def test_specs_that_differ_are_named_by_their_keys(tmp_path):
    folders = [artifact(tmp_path / "store", "student", seed) for seed in (0, 5)]
    for folder, name in zip(folders, (FIRST, SECOND), strict=True):
        run(tmp_path, name, [folder])
    table = compare_runs(FIRST, SECOND, tmp_path)
    fingerprints = [folder.name[-12:] for folder in folders]
    assert ["student: a different training", *fingerprints] in table.rows
    assert table.notes == ["student: the trainings differ in seed"]


def test_the_report_holds_every_run_and_says_what_is_missing(outputs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    text = reported([], outputs, tmp_path / "report")
    lines = text.splitlines()
    sentence = (
        "None of the 2 students differs significantly from its baseline (Holm-corrected); indicative: 1 may gain "
    )
    sentence += "and 0 may lose; 1 has only one seed and was not tested."
    assert " ".join(lines[:2]) == sentence  # two are the same trainings
    del lines[0]
    assert lines[1] == "4 runs; partial: 1 without results. All with: dataset digits, model small, loss kd"
    assert lines[3].split() == [
        "run",
        "typed",
        "teacher",
        "%",
        "baseline",
        "%",
        "student",
        "%",
        "Δ",
        "95%",
        "n",
        "status",
    ]
    shown = {line.split()[0]: line.split() for line in lines[5:9]}
    assert list(shown) == ["5eeb01/0", "5eeb01/1", "bbbbbb", "aaaaaa"]
    assert " ".join(shown["aaaaaa"][2:]) == "97.00 91.00 ± 1.00 94.00 ± 1.00 +3.00 [+0.52, +5.48] 3 done"
    assert shown["5eeb01/1"][-2:] == ["–", "failed"]
    assert "5eeb01/1: failed: boom" in lines
    assert max(map(len, lines)) <= 120
    heading, *rows = csv.reader((tmp_path / "report" / "report.csv").open())
    assert [row[0] for row in rows] == [f"{SWEEP}/0", f"{SWEEP}/1", SECOND, FIRST]  # the files keep whole names
    assert float(rows[3][heading.index("student % std")]) == pytest.approx(1.0)
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert data["partial"] is True and [r["status"] for r in data["runs"]] == ["done", "failed", "done", "done"]
    assert {p.name for p in (tmp_path / "report").iterdir()} == {
        f"report.{k}" for k in ("md", "csv", "tex", "json")
    } | {"points.csv"}


def test_a_report_of_runs_that_differ_in_all_still_fits_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for k, model in enumerate(("digits_student", "resnet8x4_bottleneck", "small")):
        store = tmp_path / "store" / model
        folders = [
            artifact(store, "teacher", right=95 + k),
            *trio(store, [93, 95, None], [90, 91, 92], model=model)[1:],
        ]
        folder = run(
            tmp_path, f"2026-01-02_03-04-0{k}-aaaaa{k}", folders, overrides=["recipe.protocol=paper"] * (k + 1)
        )
        known = json.loads((folder / "run.json").read_text())
        known["choices"] |= {"loss": ["kd", "mse_logits"][: k + 1], "dataset": f"dataset{k}"}
        changed(folder / "run.json", choices=known["choices"])
    text = reported([], tmp_path, tmp_path / "report")
    assert max(map(len, text.splitlines())) <= 120
    assert all(f"aaaaa{k}" in text for k in range(3)) and text.count("[") == 3 and text.count("2 of 3") == 3
    assert "dataset, model," in text.splitlines()[2] + text.splitlines()[3]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["aaaaaa"], [FIRST]),
        ([SWEEP], [f"{SWEEP}/0", f"{SWEEP}/1"]),
        (["runs/distill"], [FIRST, SECOND]),
        (["."], [FIRST, SECOND, f"{SWEEP}/0", f"{SWEEP}/1"]),
        (["latest", SECOND, "bbbbbb"], ["latest"]),
    ],
)
def test_a_report_takes_runs_sweeps_and_folders_of_them_each_run_once(outputs, tmp_path, monkeypatch, words, names):
    monkeypatch.chdir(outputs)
    reported(words, outputs, tmp_path / "report")
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [SECOND if r["name"] == "latest" else r["name"] for r in data["runs"]] == [
        SECOND if name == "latest" else name for name in names
    ]


def test_a_report_reads_files_and_not_folder_names(outputs, tmp_path):
    shutil.copytree(outputs / "runs" / "distill" / FIRST, tmp_path / "away" / "student-mnist-=1+1")
    reported([str(tmp_path / "away")], outputs, tmp_path / "report")
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    (row,) = data["rows"]
    assert (row["run"], row["dataset"], row["model"], row["student %"]) == (
        "student-mnist-=1+1", "digits", "small", "94.00 ± 1.00"
    )  # fmt: skip


def test_a_path_without_runs_is_refused(outputs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: holds no runs; kdrun runs lists what there is"):
        reported([str(tmp_path / "empty")], outputs, tmp_path / "report")
    with pytest.raises(ValueError, match="nowhere: there is no such run"):
        reported(["nowhere"], outputs, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("file", "content", "state"),
    [
        ("run.json", "{", "unreadable: run.json is damaged (Expecting property name"),
        ("run.json", "[]", "unreadable: run.json is damaged (it is not a JSON object)"),
        ("comparison.json", '{"rows": [', "unreadable: comparison.json is damaged (Expecting value"),
        ("comparison.json", '{"rows": [3]}', "unreadable: comparison.json is damaged (rows[0] is not an object)"),
        (
            "comparison.json",
            '{"rows": [], "lanes": [{}]}',
            "comparison.json is damaged (it has no lanes[0].gap_closed)",
        ),
        ("comparison.json", None, "1 without results"),
    ],
)
def test_damaged_and_unfinished_folders_are_reported_and_not_raised(tmp_path, file, content, state):
    outputs = tmp_path / "outputs"
    store = outputs / "store"
    run(outputs, FIRST, trio(store, [93], [90]))
    broken = run(outputs, SECOND, trio(store, [94], [90], teacher=96))
    (broken / file).unlink() if content is None else (broken / file).write_text(content)
    text = reported([], outputs, tmp_path / "report")
    assert state in " ".join(text.split())
    assert json.loads((tmp_path / "report" / "report.json").read_text())["partial"] is True
    assert "aaaaaa" in text and "+3.00" in text  # the other run is whole
    assert len(list_runs(outputs).rows) == 2


def test_a_sweep_whose_record_is_damaged_still_shows_its_cells(outputs, tmp_path):
    (outputs / "sweeps" / "distill" / SWEEP / "sweep.json").write_text("")
    reported([], outputs, tmp_path / "report")
    runs = json.loads((tmp_path / "report" / "report.json").read_text())["runs"]
    assert [r["name"] for r in runs][:2] == [f"{SWEEP}/0", f"{SWEEP}/1"]


def test_runs_that_only_measure_are_no_rows_of_the_report(outputs, tmp_path):
    folder = outputs / "runs" / "distill" / SECOND
    changed(folder / "run.json", verb="evaluate")
    reported([], outputs, tmp_path / "report")
    assert len(json.loads((tmp_path / "report" / "report.json").read_text())["rows"]) == 3


OLD = {"lane", "label", "name", "ensemble_of", "paired", "gap_closed"}


def test_comparisons_written_before_there_were_several_are_read(outputs, tmp_path):
    before = [table.to_text() for table in (list_runs(outputs), compare_runs(FIRST, SECOND, outputs))]
    report = reported([], outputs, tmp_path / "report")
    for file in outputs.rglob("comparison.json"):
        data = json.loads(file.read_text())
        data["rows"] = [{k: v for k, v in row.items() if k not in OLD} for row in data["rows"]]
        unsealed(file, rows=data["rows"], lanes=None)
    assert [table.to_text() for table in (list_runs(outputs), compare_runs(FIRST, SECOND, outputs))] == before
    assert reported([], outputs, tmp_path / "report") == report


def test_the_report_s_files_name_the_command_of_every_row(outputs, tmp_path):
    reported([], outputs, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "- bbbbbb: kdrun distill seeds=1" in text and "- 5eeb01: kdrun distill" in text


def test_two_runs_that_lie_elsewhere_are_compared_by_the_store_beside_them(tmp_path):
    there = tmp_path / "there"
    folders = [artifact(there / "store", "student", seed) for seed in (0, 5)]
    for folder, name in zip(folders, (FIRST, SECOND), strict=True):
        run(there, name, [folder])
    names = [str(there / "runs" / "distill" / name) for name in (FIRST, SECOND)]
    assert compare_runs(*names, tmp_path / "here").notes == ["student: the trainings differ in seed"]


def test_a_picture_tells_runs_apart_by_what_was_not_typed_for_all(tmp_path):
    words = [["recipe=quick", "T=1"], ["recipe=quick", "T=4"], ["recipe=quick", "loss=[kd,crd]", "loss.crd.weight=0.8"]]
    for k, typed in enumerate(words):
        run(tmp_path, f"2026-01-02_03-04-0{k}-aaaaa{k}", [], overrides=typed)
    text = short_labels(collected([], tmp_path))
    assert sorted(text.values()) == ["T=1", "T=4", "aaaaa2"]


def test_what_was_typed_for_every_run_is_said_once_on_the_terminal_and_stays_in_the_files(tmp_path):
    for number, own in enumerate(("T=1", "T=2")):
        name = f"2026-01-0{number + 1}_03-04-05-aaaaa{number}"
        run(tmp_path, name, trio(tmp_path / "store", [93, 94], [90, 91]), overrides=["precision=auto", own])
    collection = collected([], tmp_path)
    text = brief(write_report(collection, tmp_path / "report"))
    assert text.titles[-1].endswith("typed precision=auto") and text.titles[-1].count("All with") == 1
    assert [dict(zip(text.columns, row, strict=True))["typed"] for row in text.rows] == ["T=2", "T=1"]
    assert "precision=auto T=1" in (tmp_path / "report" / "report.csv").read_text()
