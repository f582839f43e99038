"""Signals at any other moment than in training: from the first line on, in imports, tables, exports and listings."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import warm
from tests.faults.conftest import SMALL, Command, Desk

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WATCHES = """
import hashlib, os, signal, sys, time
from kdrun import signals
"""


def watches(number):
    """Return whether a process has a handler for a signal."""

    def asked(pid):
        (caught,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

    return asked


def program(code, *words):
    """Start an interpreter of its own, which does not ignore SIGHUP even if the tests run under nohup."""
    env = warm.environment(PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.Popen(
        [sys.executable, *code, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 0), (signal.SIGINT, 0.2), (signal.SIGHUP, 0.5)])
def test_from_its_first_line_on_a_command_ends_at_once_with_75(number, seconds):
    command = program(["-m", "kdrun"], "distill", "student=mlp", "plan=true", "outputs=/nowhere/at/all")
    while not watches(number)(command.pid):
        assert command.poll() is None, command.stdout.read()
        time.sleep(0.001)
    time.sleep(seconds)
    command.send_signal(number)
    sentence, _ = command.communicate(timeout=10)
    assert sentence == "kdrun: interrupted before anything was started; the same command starts again\n"
    assert command.returncode == 75


def test_a_sighup_that_was_ignored_at_the_start_stays_ignored():
    code = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with signals.watched():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    time.sleep(0.01)\n"
        "    print('goes on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    command = program(["-c", WATCHES + code])
    assert command.communicate(timeout=10)[0].startswith("goes on\nkdrun: interrupted")
    assert command.returncode == 75


BUSY = """
signals.PATIENCE_SECONDS = float(sys.argv[1])
with signals.watched():
    signals.begin()
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1_000_000_000)  # the interpreter gets no turn for minutes
"""


@pytest.mark.parametrize(("patience", "signals", "code", "sentence"), [
    (60, 2, 130, "second signal"), (0.3, 1, 75, "not done 0 s after the signal"),
])  # fmt: skip
def test_code_that_gives_python_no_turn_is_left_on_the_second_signal_or_in_time(patience, signals, code, sentence):
    command = program(["-c", WATCHES + BUSY], str(patience))
    assert command.stdout.readline() == "busy\n"
    for _ in range(signals):
        command.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    message, _ = command.communicate(timeout=10)
    assert (command.returncode, sentence in message) == (code, True), message


def test_one_request_that_is_sent_twice_is_one_and_workers_leave_it_to_the_command():
    """timeout(1) signals its child and then the group that the child is in."""
    code = (
        "with signals.watched():\n"
        "    signals.begin()\n"
        "    worker = os.fork()\n"
        "    if worker == 0:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"  # as a terminal does
        "        time.sleep(0.05)\n"
        "        os._exit(7)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 7 and not signals.received()\n"
        "    with signals.StopFlag() as stop:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.2)\n"
        "        print('saves', stop.raised, flush=True)\n"
        "        os._exit(0)\n"
    )
    command = program(["-c", WATCHES + code])
    assert (command.communicate(timeout=10)[0], command.returncode) == ("saves True\n", 0)


@pytest.fixture
def done(desk, finished):
    """A desk where the small job is done: the same command only draws and writes."""
    shutil.copytree(finished.outputs, desk.outputs, symlinks=True)
    return desk


@pytest.mark.parametrize("write", [1, 4])  # of run.json, of a table
def test_a_signal_while_results_are_written_is_75_and_the_same_command_writes_them(done, write):
    output = done.type("distill", *SMALL, code=75, KDRUN_FAULT=f"after_rename:{write}:term")
    assert output.endswith("interrupted: everything so far is saved; the same command resumes\n")
    assert done.run_record()["status"] == "interrupted"
    assert not list(done.outputs.rglob(".*.tmp"))
    assert ": training" not in done.type("distill", *SMALL)


def test_a_signal_in_an_export_removes_what_is_half_made(done):
    words = ["export", "latest", "to=made", "format=safetensors", "check=false"]
    fault = "after_rename:2:term"  # the weights are written, the rest is not
    assert warm.type_(done.folder, *words, KDRUN_FAULT=fault).returncode == 75
    assert not (done.folder / "made").exists()
    assert "exported: made/model.safetensors" in warm.type_(done.folder, *words).stdout


def test_a_signal_while_a_sweep_is_begun_is_75_with_its_table(taught):
    words = ["distill", "-m", "T=1,2", *SMALL]
    output = taught.type(*words, code=75, KDRUN_FAULT="after_rename:1:term")  # sweep.json is written: nothing else
    assert "results: outputs/sweeps" in output and (taught.latest / "sweep.md").is_file()


def test_a_listing_ends_at_once():
    command = program(["-c", "from kdrun.verbs import runs\nruns.main = lambda rest: __import__('time').sleep(60)\n"
                       "import kdrun.cli\nkdrun.cli.main(['runs'])"])  # fmt: skip
    while not watches(signal.SIGTERM)(command.pid):
        time.sleep(0.001)
    command.send_signal(signal.SIGINT)
    assert "Traceback" not in command.communicate(timeout=10)[0] and command.returncode == 75


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["distill", *SMALL, "workers=0"], ["distill", "-m", "T=1,2", *SMALL], ["evaluate", "latest", "batch_size=64"],
    ["export", "latest", "to=made", "format=safetensors", "batch_size=64"],
])  # fmt: skip
def test_a_signal_every_50_ms_of_a_command_is_75_and_the_same_command_goes_on(tmp_path, finished, words):
    for moment in range(200):
        desk = Desk(tmp_path / str(moment))
        if words[0] != "distill":
            shutil.copytree(finished.outputs, desk.outputs, symlinks=True)
        pid, number = (
            warm.server().start(words, desk.folder, desk.folder / "said", KDRUN_REPORT="true"),
            ALL[moment % 3],
        )
        time.sleep(0.3 + moment * 0.05)  # by then it watches
        command, began = Command(pid, desk.folder / "said"), time.monotonic()
        ended = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        command.signal(number)
        code = command.wait()
        assert time.monotonic() - began < 10 and "Traceback" not in command.output(), command.output()
        assert not list(desk.folder.rglob(".*.tmp"))
        if ended:
            break
        assert code == 75 or (code == 0 and "results: " in command.output()), command.output()
        if moment % 10 == 0:
            again = warm.type_(desk.folder, *words, KDRUN_REPORT="true")
            assert again.returncode == 0, again.stdout + again.stderr
    assert moment > 5
