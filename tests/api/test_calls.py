"""kdrun from Python: the same files as the command line, errors as exceptions, and a process that is as it was."""

import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import kdrun
from tests import warm

SHORT = ["recipe.epochs=1", "teacher.recipe.epochs=1", "seeds=1", "device=cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("desk")


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def result(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        return kdrun.distill(*SHORT)
    finally:
        os.chdir(before)


@pytest.fixture
def own_settings(tmp_path):
    """Settings that a caller may have, none of them the default, restored at the end."""
    from hydra import initialize_config_dir

    log = logging.FileHandler(tmp_path / "mine.log", mode="w")
    figure = matplotlib.rcParams["figure.figsize"]
    switches = torch.backends.mkldnn.matmul.fp32_precision
    with warnings.catch_warnings(), initialize_config_dir(str(tmp_path), version_base="1.3"):
        warnings.simplefilter("error", ResourceWarning)
        logging.root.addHandler(log)
        logging.getLogger("hydra").setLevel(logging.CRITICAL)
        matplotlib.rcParams["figure.figsize"] = [3.0, 2.0]
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(True, warn_only=True)
        os.environ["HYDRA_FULL_ERROR"] = "0"
        try:
            yield log
        finally:
            logging.root.removeHandler(log)
            log.close()
            logging.getLogger("hydra").setLevel(logging.NOTSET)
            matplotlib.rcParams["figure.figsize"] = figure
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision("highest")
            torch.backends.mkldnn.matmul.fp32_precision = switches
            torch.use_deterministic_algorithms(False)
            del os.environ["HYDRA_FULL_ERROR"]


def process():
    """Return what a caller has in its process."""
    backends = torch.backends
    return {
        "hydra": GlobalHydra.instance().hydra,
        "hydra's configuration": HydraConfig.instance().cfg,
        "environment": dict(os.environ),
        "argv": [*sys.argv],
        "path": [*sys.path],
        "folder": os.getcwd(),
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "wakeup": _wakeup(),
        "handlers": [*logging.root.handlers],
        "levels": [logging.getLogger(name).level for name in ("", "hydra", "kdrun", "kdrun.data.listing")],
        "showwarning": warnings.showwarning,
        "formatwarning": warnings.formatwarning,
        "filters": [*warnings.filters],
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "tf32": [s.fp32_precision for s in (backends, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn,
                                            backends.mkldnn.matmul)],
        "deterministic": (torch.are_deterministic_algorithms_enabled(),
                          torch.is_deterministic_algorithms_warn_only_enabled()),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": (backends.cudnn.benchmark, backends.cudnn.deterministic),
        "matplotlib": dict(dict.items(matplotlib.rcParams)),
    }  # fmt: skip


def _wakeup():
    number = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(number)
    return number


def same(before):
    after = process()
    assert [key for key in before if before[key] != after[key]] == []


def test_the_command_line_finds_what_a_call_has_trained_and_the_other_way_round(folder, result):
    done = warm.type_(folder, "distill", *SHORT, "plan=true")
    assert done.returncode == 0 and "0 of 3 to train" in done.stdout
    assert warm.type_(folder, "train", "baseline", *SHORT[:1], "seed=7", *SHORT[2:]).returncode == 0
    plan = kdrun.train_baseline(SHORT[0], "seed=7", *SHORT[2:], "plan=true")
    assert [row["state"] for row in plan.found] == ["found"] and plan.to_train == []
    assert repr(plan) == "<kdrun plan: 0 of 1 to train; plan=true trains nothing>"


def test_a_call_leaves_the_bytes_of_the_command_whatever_its_caller_has_set(folder, tmp_path, result, own_settings):
    kdrun.distill(*SHORT, "outputs=own")
    assert warm.type_(tmp_path, "distill", *SHORT).returncode == 0
    for weights in sorted((tmp_path / "outputs" / "store").glob("*/model.safetensors")):
        assert (folder / "own" / "store" / weights.parent.name / weights.name).read_bytes() == weights.read_bytes()
    command = json.loads((tmp_path / "outputs" / "latest" / "run.json").read_text())
    called = json.loads((folder / "own" / "latest" / "run.json").read_text())
    assert called.keys() == command.keys() and called["command"] == f"{command['command']} outputs=own"
    files = {path.name for path in (tmp_path / "outputs" / "latest").iterdir()}
    assert {path.name for path in result.folder.iterdir()} == files


def test_a_sweep_has_its_cells_and_the_best_and_leaves_the_process_as_it_was(result, own_settings):
    before = process()
    sweep = kdrun.sweep("loss=kd,rkd", *SHORT)  # which draws a picture
    same(before)
    assert [cell.status for cell in sweep.cells] == ["done", "done"] and sweep.status == "done"
    assert sweep.best.folder in [cell.folder for cell in sweep.cells]
    assert sweep.comparison == sweep.best.comparison and len(sweep.frame()) == 4
    read = sweep.points().groupby(["role", "loss"])[["T", "alpha"]].first()
    assert [*read.loc["student", "kd"]] == [4.0, 0.9] and read.loc["student", "rkd"].isna().all()
    assert read.loc["baseline", "ce"].isna().all() and read.loc["teacher", "ce"].isna().all()
    assert kdrun.load_run("latest").folder == sweep.folder
    assert kdrun.runs()[0].folder == result.folder and kdrun.runs()[-1].folder == sweep.folder
    logging.warning("still mine")
    own_settings.flush()
    with open(own_settings.baseFilename) as mine:
        assert mine.read() == "still mine\n"  # the handler was not closed


def test_a_refused_call_raises_with_every_problem_and_leaves_the_process_as_it_was(result, capsys, own_settings):
    before = process()
    with pytest.raises(ValueError, match=r"T=-1: must lie in(?s:.*)alpha=3: must lie in"):
        kdrun.distill("T=-1", "alpha=3")
    with pytest.raises(ValueError, match=r"examples=\[9999\]: the test images"):  # found when the data are there
        kdrun.distill(*SHORT, "examples=[9999]")
    with pytest.raises(ValueError, match="is a flag of the command line"):
        kdrun.distill("--cfg")
    with pytest.raises(ValueError, match="settings are text"):
        kdrun.distill(4)
    same(before)
    assert "must lie" not in "".join(capsys.readouterr())


def test_a_failed_call_raises_run_failed_with_the_reason_and_what_there_is(result, own_settings):
    before = process()
    with pytest.raises(kdrun.RunFailed, match="trainings diverged") as failed:
        kdrun.distill(*SHORT, "recipe.optimizer=sgd", "recipe.lr=1e30")
    (note,) = failed.value.__notes__
    assert "kdrun.load_run(" in note and kdrun.load_run("latest").status == "failed"
    same(before)


def test_an_interrupted_call_saves_and_the_same_call_goes_on(result, own_settings, monkeypatch):
    from kdrun import faults

    before = process()
    visits = iter(range(100))
    long = [*SHORT, "recipe.epochs=2", "T=3"]

    def interrupt(site):
        if site == "after_batch" and next(visits) == 30:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(faults, "reach", interrupt)
    with pytest.raises(kdrun.Interrupted, match="the same call goes on"):
        kdrun.distill(*long)
    same(before)
    assert kdrun.load_run("latest").status == "interrupted"
    assert kdrun.distill(*long).status == "done" and next(visits) < 90


def test_a_result_has_the_numbers_the_networks_and_a_table_for_notebooks(result):
    rows = result.comparison["rows"]
    frame = result.frame().set_index("role")
    assert frame.loc["student", "test %"] == pytest.approx(100 * rows[2]["test_accuracy"]["mean"])
    assert str(result).startswith(result.verdict[:30]) and result.report is None
    with torch.no_grad():
        assert result.model("student")(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape == (2, 10)
    from kdrun.api import _html

    table = {"title": "<b>", "columns": ["a&b"], "rows": [{"a&b": "<script>"}], "notes": ["<i>"]}
    assert _html(table) == (
        "<p><b>&lt;b&gt;</b></p><table><thead><tr><th>a&amp;b</th></tr></thead><tbody><tr><td>&lt;script&gt;</td></tr>"
        "</tbody></table><ul><li>&lt;i&gt;</li></ul>"
    )
    assert "<td>digits_student</td>" in result._repr_html_()


def test_a_call_works_in_a_thread_and_within_a_running_loop(result):
    async def within():
        return kdrun.distill(*SHORT)

    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(within())))
    thread.start()
    thread.join()
    assert results[0].status == "done" and results[0].verdict == result.verdict


def test_importing_kdrun_imports_nothing_heavy():
    code = "import sys, kdrun; dir(kdrun); assert not {'torch', 'hydra', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pandas_a_frame_says_what_to_install(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"kdrun\[notebook\]"):
        result.frame()
