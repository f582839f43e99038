"""Ctrl-C, SIGTERM and SIGHUP: everything is saved, the exit code is 75, and the same command resumes."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.faults.conftest import SMALL

LONG = [*SMALL, "recipe.epochs=400"]


def interrupted(command, number=signal.SIGINT):
    """Send a signal, and give what the command said when it ended with 75."""
    command.signal(number)
    code = command.wait()
    assert code == 75, f"{code}\n{command.output()}"
    assert "Traceback" not in command.output()
    return command.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_training_saves_and_says_so_and_the_same_command_resumes(taught, number):
    command = taught.start("distill", *LONG)
    command.until("epoch 2/400")
    assert "the same command resumes" in interrupted(command, number)
    record = taught.run_record()
    assert record["status"] == "interrupted" and "the same command resumes" in record["reason"]
    command = taught.start("distill", *LONG)
    assert "resuming after epoch " in command.until(": resuming", times=2)
    interrupted(command, number)


def test_a_signal_in_mid_epoch_loses_no_batch_and_no_bit(taught, finished):
    taught.type("distill", *SMALL, code=75, KDRUN_FAULT="after_batch:8:term")
    output = taught.type("distill", *SMALL)
    assert output.count("resuming after epoch 1, batch 3") == 2
    assert taught.results() == finished.results()


def test_a_signal_in_the_last_batch_or_in_the_final_evaluation_loses_nothing(taught, finished):
    taught.type("distill", *SMALL, code=75, KDRUN_FAULT="after_batch:15:term")
    taught.type("distill", *SMALL, code=75, KDRUN_FAULT="after_rename:5:term")  # the last checkpoint
    assert taught.type("distill", *SMALL).count("resuming after epoch 3, batch 0") == 2
    assert taught.results() == finished.results()


def test_a_signal_after_the_last_measurement_is_not_lost(taught, finished):
    taught.type("distill", *SMALL, code=75, KDRUN_FAULT="before_result:2:term")
    assert ": training" not in taught.type("distill", *SMALL)
    assert taught.results() == finished.results()


def test_a_second_signal_leaves_at_once_with_130(taught, tmp_path):
    # the first save takes for ever: a pipe that nobody reads stands where its temporary file goes
    command = taught.start("distill", *LONG)
    command.until("epoch 2/400")
    os.kill(command.pid, signal.SIGSTOP)  # both signals are there before a step ends
    folder = next(taught.outputs.glob("store/baseline-*/checkpoint"))
    for number in range(2000):
        fifo = folder / f".{number:09d}.ckpt.{command.pid}.tmp"
        if not fifo.exists():
            os.mkfifo(fifo)
    command.signal(signal.SIGINT)
    command.signal(signal.SIGCONT)
    process, asleep = psutil.Process(command.pid), 0
    while asleep < 10:  # it waits for somebody to read what it saves; before that it computes
        asleep = asleep + 1 if process.status() == psutil.STATUS_SLEEPING else 0
        time.sleep(0.01)
    command.signal(signal.SIGINT)
    assert command.wait() == 130


def test_a_signal_while_another_process_is_waited_for_exits_75(taught):
    holder = taught.start("distill", *LONG)
    holder.until("epoch 1/400")
    waiter = taught.start("distill", *LONG)
    waiter.until(": waiting for process ")
    interrupted(waiter)
    interrupted(holder)


def test_a_signal_in_a_sweep_of_cohorts_saves_all_and_writes_the_numbers_of_the_cells_that_are_complete(taught):
    words = ["distill", "-m", "seed=0,1", "T=1,2", *SMALL, "recipe.epochs=40"]
    command = taught.start(*words)
    command.until("student mlp seed=1 T=2 seed 1, epoch 2/40")
    output = interrupted(command)
    sweep = json.loads((taught.latest / "sweep.json").read_text())
    assert sweep["status"] == "interrupted" and "the same command resumes" in output
    assert [cell["status"] for cell in sweep["cells"]] == ["done", "done", "not started", "not started"]
    assert (taught.latest / "sweep.md").read_text().startswith("2 of 4 cells finished. ")
    assert "results: outputs/sweeps/distill/" in output
    again = taught.type(*words)
    assert again.count("resuming after epoch") == 3  # the baseline and two students
    assert again.index("cell 2 of 4") < again.index("resuming after epoch") < again.index("cell 3 of 4")
    sweep = json.loads((taught.latest / "sweep.json").read_text())
    assert [cell["status"] for cell in sweep["cells"]] == ["done"] * 4


def test_a_signal_in_a_sweep_of_one_cell_after_the_other_stops_it_and_writes_its_table(taught):
    words = ["distill", "-m", "T=1,2,3", *SMALL, "recipe.epochs=40", "hydra/launcher=basic"]
    command = taught.start(*words)
    command.until("cell 2 of 3")
    command.until("student mlp seed 0, epoch 2/40", times=2)
    output = interrupted(command)
    folder = taught.latest
    sweep = json.loads((folder / "sweep.json").read_text())
    assert [cell["status"] for cell in sweep["cells"]][:2] == ["done", "interrupted"]
    assert not (folder / "2").exists()
    assert sweep["status"] == "interrupted"
    assert (folder / "sweep.md").is_file() and "results: outputs/sweeps/distill/" in output
    again = taught.type(*words)
    assert "resuming after epoch" in again and again.count("student mlp seed 0: training") == 2


def test_sigterm_before_any_training_is_75_as_well(taught):
    command = taught.start("distill", *LONG, KDRUN_FAULT="after_rename:1:term")  # run.json is written: nothing else
    assert command.wait() == 75
    assert taught.run_record()["status"] == "interrupted"


def test_a_signal_to_a_command_typed_in_a_shell(tmp_path):
    """Not through the tests' server: the interpreter as a user starts it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("KDRUN_")}
    command = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "kdrun",
            "train",
            "baseline",
            "student=mlp",
            "recipe.epochs=400",
            "device=cpu",
            "verbose=true",
        ],
        cwd=tmp_path,
        env={**env, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = ""
    while "epoch 2/400" not in output:
        line = command.stdout.readline()
        assert line, output
        output += line
    command.send_signal(signal.SIGTERM)
    rest, _ = command.communicate(timeout=120)
    assert command.returncode == 75, rest
    assert "the same command resumes" in rest and "Traceback" not in rest
