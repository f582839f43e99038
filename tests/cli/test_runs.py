"""kdrun runs: a line for each run and sweep, what all share said once, filters, and what exists."""

import re
import shutil

import pytest

from tests.cli.conftest import Desk
from tests.results.given import artifact, changed, run, sweep, trio

TEN = [80 + seed for seed in range(6)]


def name(number, uid):
    return f"2026-01-02_03-{number:02}-05-{uid}"


def settings(loss="kd", T=4.0, **more):
    choices = {"dataset": "digits", "teacher": "big", "student": "small", "loss": [loss]}
    return {"choices": choices, "config": {"T": T, "seeds": 6, "recipe": {"lr": 0.05}}} | more


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Six runs of every kind and one sweep, all of digits with seeds=6 where they trained students."""
    desk = Desk(tmp_path_factory.mktemp("runs"))
    outputs = desk.folder / "outputs"
    store = outputs / "store"

    def one(number, uid, folders, **more):
        created = {"created": f"2026-01-02T03:{number:02}:05+00:00"}
        return run(outputs, name(number, uid), folders, **(settings() | created | more))

    one(1, "aaaaaa", trio(store, [right + 2 for right in TEN], TEN), overrides=["seeds=6"])
    one(2, "bbbbbb", trio(store, [right + (-1) ** right for right in TEN], TEN, x=2), overrides=["seeds=6", "loss=dkd"],
        **settings("dkd"))  # fmt: skip
    one(3, "cccccc", [artifact(store, "teacher", right=97)], verb="train_teacher")
    evaluated = one(4, "dddddd", [], verb="evaluate", config={"run": name(1, "aaaaaa")}, overrides=["cost=true"])
    changed(evaluated / "run.json", choices={})
    one(5, "eeeeee", [], status="failed", reason="boom", overrides=["seeds=6", "recipe.lr=1e30"])
    broken = one(6, "ffffff", trio(store, [93], [90], x=3), overrides=["seeds=6"])
    (broken / "comparison.json").write_text("{")
    cells = [([f"T={t}", "seeds=6"], trio(store, [r + 4 - t for r in TEN], TEN, val=1 - t / 100, x=t)) for t in (1, 2)]
    waiting = (["T=4", "seeds=6"], ("waiting", None))
    sweep(outputs, [*cells, waiting], status="running", created="2026-01-03T10:00:00+00:00", **settings(T=1.0))
    return desk


def rows(output):
    """The cells of each line of the list."""
    lines = output.split("\n\n")[1].splitlines()
    edges = [match.span() for match in re.finditer("─+", lines[1])]
    return [[line[start : edges[n + 1][0] if n + 1 < len(edges) else None].strip()
             for n, (start, _) in enumerate(edges)] for line in lines[2:]]  # fmt: skip


def test_every_kind_of_run_is_one_line_of_80_columns_newest_last(desk):
    output = desk.runs("runs", COLUMNS="80", TZ="UTC")
    assert max(map(len, output.splitlines())) <= 80
    assert output.startswith("7 runs under outputs; all: dataset=digits\n")
    assert rows(output) == [
        ["aaaaaa", "01-02 03:01", "97.00", "82.50", "84.50", "gain", "seeds=6"],
        ["bbbbbb", "01-02 03:02", "97.00", "82.50", "82.50", "unclear", "loss=dkd seeds=6"],
        ["cccccc", "01-02 03:03", "97.00", "–", "–", "done", "train teacher"],
        ["dddddd", "01-02 03:04", "–", "–", "–", "done", "evaluate aaaaaa +1"],
        ["eeeeee", "01-02 03:05", "–", "–", "–", "failed", "recipe.lr=1e30 +1"],
        ["ffffff", "01-02 03:06", "–", "–", "–", "unreadable", "seeds=6"],
        ["5eeb01", "01-03 10:00", "97.00", "82.50", "85.50", "2 of 3", "T=1,2,4 ★ T=1 +1"],
    ]
    notes = " ".join(output.split("\n\n")[2].split())
    assert "unclear: no significant difference" in notes and "eeeeee: failed: boom" in notes
    assert "ffffff: unreadable: comparison.json is damaged" in notes and "--wide shows them" in notes


def test_what_all_trainings_share_is_above_and_filters_and_n_leave_the_newest(desk):
    output = desk.runs("runs", "status=done", "verb=distill", "seeds=6.0", "-n", "2", COLUMNS="120")
    assert output.startswith("2 of 7 runs under outputs; all: dataset=digits seeds=6\n")
    assert [(row[0], row[-1]) for row in rows(output)] == [("bbbbbb", "loss=dkd"), ("5eeb01", "T=1,2,4 ★ T=1")]
    assert [row[0] for row in rows(desk.runs("runs", "loss=dkd"))] == ["bbbbbb"]
    assert [row[0] for row in rows(desk.runs("runs", "T=1"))] == ["5eeb01"]  # a cell of it
    alone = desk.runs("runs", "loss=dkd", "--wide")
    assert alone.startswith("1 of 7 runs under outputs: dataset=digits seeds=6 loss=dkd\n") and "82.50 ± 1.87" in alone


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["temperature=4"], "temperature=4: no run here has a setting temperature. Type T=4"),
        (["recipe.lrr=4"], "no run here has a setting recipe.lrr. Did you mean recipe.lr?"),
        (["loss=crd"], "loss=crd: no run here has it; loss is kd, dkd"),
        (["loss=dkd", "T=1"], "loss=dkd T=1: no run here has all of these"),
        (["-n", "0"], "-n 0: must be at least 1 (how many of the newest"),
        (["aaaaaa", "bbbbbb", "T=1"], "aaaaaa bbbbbb: compares two runs; leave filters and -n out"),
    ],
)
def test_a_filter_that_leaves_nothing_is_answered_with_what_exists(desk, words, answer):
    assert answer in desk.refuses("runs", *words)


def test_forty_runs_take_forty_lines(tmp_path):
    desk = Desk(tmp_path)
    first = run(tmp_path / "outputs", name(0, "000000"), trio(tmp_path / "outputs" / "store", [93], [90]))
    for number in range(40):
        words = [f"T={1 + number}", "transfer.fraction=0.5", "recipe.weight_decay=0.0005", "seeds=1"]
        folder = first.with_name(name(number, f"{number:06}"))
        if number:
            shutil.copytree(first, folder)
        changed(folder / "run.json", overrides=words)
    lines = desk.runs("runs", COLUMNS="80").splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) < 50
    assert " ".join(lines[:3]).startswith(
        "40 runs under outputs; all: dataset=digits transfer.fraction=0.5 recipe.weight_decay=0.0005 seeds=1"
    )
    assert [line.split()[-1] for line in lines if "T=" in line] == [f"T={1 + number}" for number in range(40)]
