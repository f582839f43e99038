"""Standard output that cannot be written stops nothing: what it lacks is replaced or dropped, the log is whole."""

import os
import shutil
import subprocess
import sys

import pytest

from tests import warm
from tests.faults.conftest import SMALL


def shell(line, folder, **variables):
    """Type a line with pipes in a shell, in interpreters of their own; give its end."""
    env = warm.environment(PYTHONPATH=os.pathsep.join(sys.path), **variables)
    line = line.replace("kdrun", f"{sys.executable} -m kdrun")
    return subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, timeout=60)


@pytest.mark.parametrize("where", ["a closed pipe", "/dev/full"])
def test_a_training_goes_on_when_its_output_cannot_be_written(taught, finished, where):
    out = taught.folder / "pipe" if where == "a closed pipe" else "/dev/full"
    reader = None
    if where == "a closed pipe":
        os.mkfifo(out)
        reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    words = ["distill", *SMALL, "device=cpu", "workers=0"]
    pid = warm.server().start(words, taught.folder, out, taught.folder / "err")
    if reader is not None:
        while not os.path.exists(taught.outputs / "latest" / "kdrun.log"):
            assert os.path.exists(f"/proc/{pid}")
        os.close(reader)
    assert warm.server().wait(pid) == 0
    assert taught.results() == finished.results()
    assert (taught.latest / "comparison.md").is_file()
    assert (taught.latest / "kdrun.log").read_text().count("student mlp seed 0, epoch ") == 3
    err = (taught.folder / "err").read_text()
    sentence = "kdrun: standard output cannot be written (No space left on device); the rest goes on\n"
    assert err == ("" if reader is not None else sentence)


def test_listings_end_quietly_on_a_closed_pipe_and_a_full_device(tmp_path):
    done = shell("kdrun losses | head -1; echo ${PIPESTATUS[0]}; kdrun --help | true; echo ${PIPESTATUS[0]}", tmp_path)
    assert (done.stdout.split()[-2:], done.stderr) == ([b"0", b"0"], b"")
    done = shell("kdrun datasets >/dev/full; echo $?; kdrun nope >/dev/full 2>/dev/full; echo $?", tmp_path)
    assert done.stdout == b"0\n2\n" and done.stderr.count(b"\n") == 1
    done = shell("kdrun --help >&- 2>&-; echo $?", tmp_path)
    assert (done.stdout, done.stderr) == (b"0\n", b"")


def test_an_ascii_encoding_replaces_what_it_lacks(finished):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = shell("kdrun losses && kdrun models && kdrun runs", finished.folder, **ascii_only)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout and b"mlp" in done.stdout and b"distill" in done.stdout
    assert b"Traceback" not in shell("kdrun runs --no-such-word-é", finished.folder, **ascii_only).stderr


def test_a_log_file_that_cannot_be_written_is_said_once_and_stops_nothing(desk, finished):
    shutil.copytree(finished.outputs, desk.outputs, symlinks=True)
    (desk.folder / "mine").mkdir()
    (desk.folder / "mine" / "kdrun.log").symlink_to("/dev/full")
    output = desk.type("distill", *SMALL, "hydra.run.dir=mine")
    assert output.count("mine/kdrun.log (No space left on device)") == 1


def test_a_disk_without_room_is_refused_at_the_start_and_nothing_is_left(tmp_path):
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "import kdrun.cli, sys\n"
        "try:\n    kdrun.cli.main(['distill'])\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    env = warm.environment(PYTHONPATH=os.pathsep.join(sys.path), PYTHONDONTWRITEBYTECODE="1")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{tmp_path} cannot be written (File too large; " in done.stderr and "MB are free there" in done.stderr
    assert list(tmp_path.iterdir()) == []
