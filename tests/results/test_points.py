"""points.csv: every network's numbers, one a row."""

import csv
import json
import re
from pathlib import Path

import kdrun
from tests.results.given import run, sweep, trio

DOCS = Path(kdrun.__file__).parents[1] / "docs"


def points(folder):
    return list(csv.DictReader((folder / "points.csv").open(newline="")))


def test_points_have_the_exact_numbers_of_every_finished_network_and_nothing_of_others(tmp_path):
    made = trio(tmp_path / "store", [93, 91, None], [90, 89, 88], T=4.0, alpha=0.9, loss="kd")
    folder = run(tmp_path, "2026-01-02_03-04-05-aaaaaa", made)
    rows = points(folder)
    comparison = json.loads((folder / "comparison.json").read_text())
    for row in comparison["rows"]:
        for point in row["points"]:
            own = {(r["at"], r["split"], r["measure"]): r for r in rows if r["fingerprint"] == point["fingerprint"]}
            if point["status"] != "done":
                assert own == {}
                continue
            for at, part in (("selected", "test"), ("selected", "val"), ("last", "train")):
                line = own[at, part, "accuracy"]
                assert float(line["value"]) == point[at][part]["accuracy"]  # repr, not rounded
                assert int(line["epoch"]) == point[at]["epoch"] and int(line["seed"]) == point["seed"]
            assert float(own["selected", "test", "ece"]["value"]) == point["measures"]["ece"]
    assert len(rows) == len({(r["fingerprint"], r["at"], r["split"], r["measure"]) for r in rows})
    assert {r["role"] for r in rows} == {"teacher", "baseline", "student"}
    assert {r["run"] for r in rows} == {folder.name} and {r["cell"] for r in rows} == {""}


def test_points_of_files_that_name_no_loss_have_T_and_alpha_only_where_the_formula_reads_them(tmp_path):
    config = {"loss": {"ce": {"weight": None}, "kd": {"weighed_by": "alpha"}}}
    formula = "0.1·CE(y, p_s) + 0.9·4²·KL(p_t ‖ p_s; T=4)"
    made = trio(tmp_path / "store", [93], [90], T=4.0, alpha=0.9, formula=formula)
    rows = points(run(tmp_path, "2026-01-02_03-04-05-aaaaaa", made, config=config))
    assert {(r["role"], r["loss"], r["T"], r["alpha"]) for r in rows} == {
        ("teacher", "ce", "", ""), ("baseline", "ce", "", ""), ("student", "kd", "4.0", "0.9"),
    }  # fmt: skip


def test_the_lines_of_pandas_in_the_documentation_draw_a_sweep_of_T(tmp_path, monkeypatch):
    cells = [([f"T={T}", "recipe.lr=0.1"], trio(tmp_path / "store", [90 + T, 91], [89, 90], T=float(T), loss="kd"))
             for T in (1, 2)]  # fmt: skip
    folder = sweep(tmp_path / "outputs", cells)
    from kdrun.results.sweep.write import write_sweep

    write_sweep(folder)
    rows = points(folder)
    assert {(r["cell"], r["T"]) for r in rows if r["role"] == "student"} == {("0", "1.0"), ("1", "2.0")}
    assert "recipe.lr" not in rows[0]  # the same in all cells
    (tmp_path / "outputs" / "latest").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    (code,) = re.findall(r"```python\n(import pandas.*?)```", (DOCS / "results-files.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    assert (tmp_path / "mine.pdf").is_file()
    assert names["table"]["mean"].to_dict() == {1.0: (91 + 91) / 200, 2.0: (92 + 91) / 200}
