"""hydra/launcher=gpus: cells at once in processes of one machine, which share the store and nothing else."""

import json
import os
import signal
import time

import psutil
import pytest

from tests.cli.conftest import Desk
from tests.launchers.conftest import SHORT, latest, needs, start, trained

pytestmark = [needs("hydra_joblib_launcher"), pytest.mark.slow]
GPUS = ["hydra/launcher=gpus", "hydra.launcher.n_jobs=2"]
LONG = ["recipe.epochs=400", *SHORT[1:]]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two cells at once, with one teacher; and what was said."""
    desk = Desk(tmp_path_factory.mktemp("gpus"))
    words = [*SHORT, "teacher.recipe.epochs=60"]  # long enough for the second cell to find it under way
    # force=true: one command for both cells, so that neither trains anew what the other has made
    return desk, desk.runs("distill", "-m", *GPUS, "T=1,4", *words, "force=true"), words


def test_cells_that_start_together_train_one_teacher_and_one_baseline(swept):
    _, output, _ = swept
    assert output.count("teacher digits_teacher: training") == 1
    assert output.count("baseline digits_student seed 0: training") == 1
    assert output.count("student digits_student seed 0: training") == 2
    assert "teacher digits_teacher: waiting for process " in output and " (busy since " in output
    assert output.count(", trained by another process") >= 1


def test_each_line_says_which_cell_it_is_about(swept):
    _, output, _ = swept
    lines = [line for line in output.splitlines() if ": training " in line or ", epoch " in line]
    assert {line[:4] for line in lines} == {"[0] ", "[1] "}


def test_the_table_is_that_of_a_sweep_in_turn_and_the_numbers_are_the_same_bit_for_bit(swept, desk):
    beside, _, words = swept
    desk.runs("distill", "-m", "hydra/launcher=basic", "T=1,4", *words)
    assert trained(beside) == trained(desk)
    one, other = latest(beside), latest(desk)
    assert [cell["status"] for cell in one["cells"]] == ["done", "done"]
    assert one["best"] == other["best"] and one["table"]["rows"] == other["table"]["rows"]


def test_a_cell_that_fails_leaves_the_others_alone(desk):
    desk.write("own.py", "from torch import nn\nclass Net(nn.Linear):\n    pass\n")
    words = ["recipe.lr=0.01,1e30", "recipe.epochs=2", *SHORT[1:]]
    done = desk.type("distill", "-m", *GPUS, *words)
    assert done.returncode == 3, done.stdout + done.stderr
    assert [cell["status"] for cell in latest(desk)["cells"]] == ["done", "failed"]
    assert "diverged" in latest(desk)["cells"][1]["reason"]


def test_a_cell_that_the_system_kills_ends_the_sweep_with_a_sentence_and_the_same_command_resumes(desk):
    words = ["distill", "-m", *GPUS, "T=1,4", *SHORT]
    done = desk.type(*words, KDRUN_FAULT="before_result:3:kill")
    output = done.stdout + done.stderr
    assert done.returncode == 3 and "Traceback" not in output, output
    assert "the process of a cell was killed, perhaps because memory ran out" in output
    assert (
        "stopped" in [cell["status"] for cell in latest(desk)["cells"]] or "its process is no longer running" in output
    )
    assert "resuming after epoch 1" in desk.runs(*words)


def wait_for(desk, command, *texts):
    end = time.monotonic() + 120
    while not all(text in (desk.folder / "said.txt").read_text() for text in texts):
        assert command.poll() is None and time.monotonic() < end, (desk.folder / "said.txt").read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", pytest.param("a closed terminal", marks=pytest.mark.slow)])
def test_a_signal_stops_all_cells_at_a_checkpoint_and_the_same_command_resumes(desk, how):
    words = ["distill", "-m", *GPUS, "T=1,2,4", *LONG]
    command = start(desk, *words)
    wait_for(desk, command, *(f"[{cell}] student digits_student seed 0, epoch 2/400" for cell in (0, 1)))
    family = psutil.Process(command.pid).children(recursive=True)
    if how == "SIGTERM":
        command.terminate()
    else:
        os.killpg(command.pid, signal.SIGINT if how == "Ctrl-C" else signal.SIGHUP)
    assert command.wait(timeout=30) == 75, (desk.folder / "said.txt").read_text()
    assert "Traceback" not in (desk.folder / "said.txt").read_text()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert [cell["status"] for cell in latest(desk)["cells"]] == ["interrupted", "interrupted", "not started"]
    runs = sorted((desk.folder / "outputs" / "latest").glob("[01]/run.json"))
    assert [json.loads(run.read_text())["status"] for run in runs] == ["interrupted", "interrupted"]
    again = start(desk, *words)
    wait_for(desk, again, *(f"[{cell}] student digits_student seed 0: resuming after epoch" for cell in (0, 1)))
    again.terminate()
    assert again.wait(timeout=30) == 75
