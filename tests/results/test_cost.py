"""Cost side by side: factors against the teacher, one machine for all, and columns for any table."""

import json

import pytest

from kdrun.measuring.cache import cache
from kdrun.results import cost as costs
from kdrun.results.cost import cost_of, machine, machine_of
from kdrun.results.cost_table import cost_columns, cost_table, write_cost
from kdrun.results.networks import StoredNetwork, read_rows
from kdrun.results.plots import pareto
from kdrun.results.plots.pareto import pareto_points, plot_pareto_by_data
from tests.results.given import LOST, artifact, record, two_students

CPU = {"device": "cpu (x86_64)", "kind": "cpu", "threads": 2, "torch": "2.11.0"}
GPU = {"device": "NVIDIA H200", "kind": "cuda", "threads": 2, "torch": "2.11.0"}


def timed(folder, ms, *, on=CPU, sitting="then", precision="fp32", macs=1_000_000, memory=5_000_000):
    """Keep a measurement beside an artifact: batch 1 takes `ms`, batch 128 a hundred times that."""
    latency = {
        at: {"median_ms": factor * ms, "p95_ms": 1.5 * factor * ms, "runs": 200, "warmup": 20}
        for at, factor in (("1", 1), ("128", 100))
    }
    content = {"sitting": sitting, "parameters": 1, "macs": macs, "flops": 2 * macs, "latency": latency,
               "memory": {"1": memory // 10, "128": memory}}  # fmt: skip
    cache(folder, "cost", {**on, "precision": precision, "plans": []}, content)
    return folder


def trio(store, **more):
    """Make a teacher of 168,420 parameters, and two seeds each of a baseline and a student of 16,842."""
    made = [timed(artifact(store, "teacher", parameters=168_420, bytes=701_000), 4.0, macs=12_000_000, **more)]
    for seed in (0, 1):
        made += [timed(artifact(store, role, seed), 0.5, **more) for role in ("baseline", "student")]
    return made


def networks(folders):
    return [StoredNetwork.read(folder) for folder in folders]


def cells(result):
    return [dict(zip(result.headings, row, strict=True)) for row in result.cells]


def test_columns_give_operations_times_memory_and_factors_against_the_teacher(tmp_path):
    teacher, *small = networks(trio(tmp_path))
    result = cost_columns([[teacher], small], [[teacher], [teacher]])
    assert result.headings == ["MACs", "ms @1", "ms @128", "memory", "× smaller", "× faster @1", "× faster @128"]
    assert result.cells == [
        ["12.00 M", "4", "400", "5.0 MB", "1", "1", "1"],
        ["1.00 M", "0.5", "50", "5.0 MB", "10", "8", "8"],
    ]
    assert result.cells[1][1].parts == {"": 0.5, "p95": 0.75}
    assert any("cpu (x86_64), 2 threads, fp32, torch 2.11.0" in note for note in result.notes)
    assert not any("sitting" in note for note in result.notes)


def test_without_a_teacher_or_a_measurement_columns_that_nobody_fills_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "operations", lambda folder: 7_000)
    bare = networks([artifact(tmp_path, "student")])
    assert cost_columns([bare]).headings == ["MACs"]
    assert cells(cost_columns([bare], [bare])) == [{"MACs": "7.0 K", "× smaller": "1"}]
    half = cost_columns([networks([timed(artifact(tmp_path, "baseline"), 0.5)]), bare])
    assert [row["ms @1"] for row in cells(half)] == ["0.5", "–"]


def test_what_cannot_be_built_here_has_no_operations_and_a_row_without_networks_has_nothing(tmp_path):
    unknown = networks([artifact(tmp_path, "student")])  # its spec.json is no network of kdrun's
    assert cost_columns([unknown, []]) == ([], [[], []], [])
    lost = networks([artifact(tmp_path, "student", 1, **LOST)])
    assert cost_of(lost) is None


def test_operations_of_a_network_are_counted_without_a_measurement(tmp_path):
    folder = artifact(tmp_path, "student")
    spec = json.loads((folder / "spec.json").read_text())
    shapes = {"num_classes": 4, "in_channels": 1, "image_size": [8, 8]}
    spec["model"] = {"use": "mlp.Mlp", "arguments": {"hidden": [32], "dropout": 0.0}, "digest": None} | shapes
    spec["data"] |= {"mean": [0.5], "std": [0.5]}
    (folder / "spec.json").write_text(json.dumps(spec))
    (result,) = cells(cost_columns([networks([folder])]))
    assert result["MACs"].parts == {"": 64 * 32 + 32 * 4, "FLOPs": 2 * (64 * 32 + 32 * 4)}


def test_the_machine_that_knows_most_is_taken_and_of_several_the_last_asked(tmp_path):
    folders = trio(tmp_path)
    timed(folders[0], 1.0, on=GPU)
    rows = [[m] for m in networks(folders)]
    assert machine(rows) == CPU
    for folder in folders:
        timed(folder, 0.1, on=GPU)
    assert machine(rows) == GPU and machine(rows, "cpu") == CPU and machine(rows, "nvidia") == GPU
    assert machine(rows, "tpu") is None and machine([]) is None
    assert [row["ms @1"] for row in cells(cost_columns(rows, device="cpu"))] == ["4", "0.5", "0.5", "0.5", "0.5"]


def test_one_measured_seed_speaks_for_all_of_its_row_and_the_newest_counts(tmp_path):
    first, second = artifact(tmp_path, "student", 0), artifact(tmp_path, "student", 1)
    timed(second, 0.7)
    timed(second, 0.9)
    assert cost_of(networks([first, second]), CPU).latency("1") == 0.9
    assert cost_of(networks([first]), CPU).latency("1") is None


def test_other_threads_are_another_machine(tmp_path):
    folder = artifact(tmp_path, "student")
    timed(folder, 0.7, on=CPU | {"threads": 1})
    timed(folder, 0.4)
    (network,) = networks([folder])
    assert cost_of([network], CPU | {"threads": 1}).latency("1") == 0.7


def test_times_from_several_sittings_are_said_to_be(tmp_path):
    teacher, *small = networks(
        [timed(artifact(tmp_path, "teacher"), 4.0), timed(artifact(tmp_path, "student"), 0.5, sitting="now")]
    )
    assert any("not all were timed in one session" in note for note in cost_columns([[teacher], small]).notes)


def test_the_table_of_a_run_has_a_row_for_each_machine(tmp_path):
    folders = trio(tmp_path)
    rows = read_rows(folders, record(folders))
    one = cost_table(rows, [CPU])
    assert "on" not in one.columns and len(one.rows) == 3
    for folder in folders:
        timed(folder, 0.01, on=GPU)
    both = cost_table(rows, [GPU, CPU])
    shown = [dict(zip(both.columns, row, strict=True)) for row in both.rows]
    assert [(row["role"], row["on"], row["ms @1"]) for row in shown][2:4] == [
        ("student", "cuda", "0.01"),
        ("teacher", "cpu", "4"),
    ]
    assert sum("a forward pass of 1 and of 128 images" in note for note in both.notes) == 2
    assert shown[-1]["params"] == "16.8 K" and shown[-1]["size"] == "70.1 kB" and shown[-1]["p95 @128"] == "75"


def test_of_several_teachers_there_are_no_factors(tmp_path):
    folders = [timed(artifact(tmp_path, "teacher", model=name), 4.0) for name in ("big", "bigger")]
    folders.append(timed(artifact(tmp_path, "student"), 0.5))
    table = cost_table(read_rows(folders, record(folders)), [CPU])
    assert "× smaller" not in table.columns and any("several teachers" in note for note in table.notes)


def test_files_hold_all_of_it_and_the_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folders = trio(tmp_path / "store")
    (tmp_path / "out").mkdir()
    text = write_cost(tmp_path / "out", folders, record(folders), [CPU], command="kdrun evaluate x cost=true")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "cost.md", "cost.csv", "cost.json", "cost.tex", "pareto.svg",
        "pareto-narrow.svg",
    }  # fmt: skip
    student = json.loads((tmp_path / "out" / "cost.json").read_text())["networks"][2]
    assert student["flops"] == 2_000_000 and student["latency"]["128"]["p95_ms"] == 75 and student["machine"] == CPU
    assert student["times_the_teacher"] == pytest.approx(
        {"parameters": 10, "bytes": 10, "macs": 12, "latency_1": 8, "latency_128": 8}
    )
    assert "168.4 K" in text and "command: kdrun evaluate x cost=true" in (tmp_path / "out" / "cost.md").read_text()


def test_points_of_a_picture_are_one_for_each_set_of_trainings(tmp_path):
    folders, _ = two_students(tmp_path, [(80, 82), (85, 87)], baselines=(80, 81))
    for folder in folders:
        timed(folder, 4.0 if "teacher" in folder.name else 0.5)
    result = networks(folders)
    groups = [("teacher", "teacher", result[:1]), ("small", "student", result[3:5]), ("again", "student", result[3:5]),
              ("unmeasured", "student", networks([artifact(tmp_path, "student", 9, **LOST)]))]  # fmt: skip
    points = pareto_points(groups)
    assert [point.label for point in points] == ["teacher", "small"]
    assert points[1].accuracy.mean == pytest.approx(0.81) and points[1].accuracy.n == 2
    assert points[1].costs == {"parameters": 16842.0, "macs": 1e6, "latency_1": 0.5, "latency_128": 50.0}
    assert points[1].machine == CPU == machine_of({"settings": CPU | {"precision": "fp32"}})


def test_each_row_is_held_against_its_own_teacher_and_one_without_against_none(tmp_path):
    big, bigger = ([timed(artifact(tmp_path, "teacher", model=name, parameters=n), ms)]
                   for name, n, ms in (("big", 168_420, 4.0), ("bigger", 1_684_200, 8.0)))  # fmt: skip
    small = networks([timed(artifact(tmp_path, "student"), 0.5)])
    result = cells(cost_columns([small, small, small], [networks(big), networks(bigger), []]))
    assert [(row["× smaller"], row["× faster @1"]) for row in result] == [("10", "8"), ("100", "16"), ("–", "–")]


def test_a_machine_whose_name_begins_as_another_s_is_another(tmp_path):
    folders = trio(tmp_path / "store", on=GPU)
    for folder in folders:
        timed(folder, 9.0, on=GPU | {"device": "NVIDIA H200 NVL"})
    (tmp_path / "out").mkdir()
    write_cost(tmp_path / "out", folders, record(folders), [GPU])
    assert "<!-- latency of one image, ms, on NVIDIA H200 -->" in (tmp_path / "out" / "pareto.svg").read_text()


def test_networks_on_other_data_share_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(pareto, "plot_pareto", lambda points, folder, *, name: folder / f"{name}.svg")
    folders = trio(tmp_path / "store", on=CPU)
    groups = [("big", "teacher", networks(folders[:1])), ("small", "student", networks(folders[2:3]))]
    (drawn,) = plot_pareto_by_data(groups, tmp_path)
    assert drawn == ("digits", tmp_path / "pareto.svg")
    alone = [artifact(tmp_path / "store", "student", 5, dataset="other")]
    assert plot_pareto_by_data([*groups, ("one", "student", networks(alone))], tmp_path) == [drawn]
    pairs = [[artifact(tmp_path / "store", role, model=f"{role}{data}", dataset="other", data=data)
              for role in ("teacher", "student")] for data in ("aaaaaaaa", "bbbbbbbb")]  # fmt: skip
    groups += [(f.name, f.name.partition("-")[0], networks([f])) for pair in pairs for f in pair]
    assert [(name, path.name) for name, path in plot_pareto_by_data(groups, tmp_path)] == [
        ("digits", "pareto-digits.svg"),
        ("other-aaaaaa", "pareto-other-aaaaaa.svg"),
        ("other-bbbbbb", "pareto-other-bbbbbb.svg"),
    ]
