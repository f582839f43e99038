"""Divergence, damaged checkpoints, a full disk: said clearly, exit 3, and nothing else is lost."""

import json
import resource
import shutil
import subprocess
import sys

import pytest

from tests.faults.conftest import SMALL

ONE = SMALL[4:]


def test_a_diverged_learner_is_in_the_table_and_the_others_go_on(taught):
    output = taught.type("distill", *SMALL, "loss.kd.weight=1.0e30", "recipe.lr=1.0e10", code=3)
    assert "student mlp seed 0: epoch 1, batch" in output and "kd: T=4" in output and "lr 9.89e+09" in output
    record = taught.run_record()
    assert record["status"] == "failed" and "diverged" in record["reason"]
    assert "diverged" in (taught.latest / "comparison.md").read_text()


def test_a_sweeps_other_cells_go_on_and_the_same_command_runs_only_what_is_missing(taught):
    words = ["distill", "-m", "recipe.lr=1.0e30,0.005", *SMALL]
    output = taught.type(*words, code=3)
    sweep = json.loads((taught.latest / "sweep.json").read_text())
    assert [cell["status"] for cell in sweep["cells"]] == ["failed", "done"]
    assert "diverged" in sweep["cells"][0]["reason"] and "epoch 1, batch" in sweep["cells"][0]["reason"]
    assert "diverged" in (taught.latest / "sweep.md").read_text()
    assert "Error executing job" not in output
    again = taught.type(*words, code=3)
    assert ": training" not in again


def test_a_failed_cell_is_tried_again_and_the_finished_ones_are_found(taught):
    words = ["distill", "-m", "T=1,2", *SMALL, "hydra/launcher=basic"]
    taught.type(*words, code=3, KDRUN_FAULT="in_write:19:enospc")  # among the student's files
    first = json.loads((taught.latest / "sweep.json").read_text())
    assert first["cells"][0]["status"] == "failed"
    assert not (taught.latest / "1").exists()  # no further cell is begun on a full disk
    output = taught.type(*words)
    assert output.count("baseline mlp seed 0: found") == 2 and output.count("student mlp seed 0: training") == 2
    second = json.loads((taught.latest / "sweep.json").read_text())
    assert [cell["status"] for cell in second["cells"]] == ["done", "done"]


BROKEN = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))

class Broken(Net):
    steps = 0

    def forward(self, x):
        self.steps += self.training and len(x) > 2
        if self.steps > 3:
            raise RuntimeError("a bug of the user's own")
        return super().forward(x)
"""


@pytest.mark.parametrize("launcher", ["basic", "cohort"])
def test_a_bug_in_one_cell_is_told_and_the_other_cell_runs(taught, launcher):
    (taught.folder / "own.py").write_text(BROKEN)
    words = [w for w in SMALL if not w.startswith("student")]
    own = ["student=external", "student.target=own:Broken,own:Net", f"hydra/launcher={launcher}"]
    command = taught.start("distill", "-m", *own, *words, PYTHONPATH=str(taught.folder))
    assert command.wait() == 3
    sweep = json.loads((taught.latest / "sweep.json").read_text())
    assert [cell["status"] for cell in sweep["cells"]] == ["failed", "done"]
    assert sweep["cells"][0]["reason"] == "RuntimeError: a bug of the user's own"
    log = (taught.latest / "0" / "kdrun.log").read_text()
    assert "Traceback" in log  # a bug's place is kept


def test_a_bug_in_a_cohort_is_told_and_its_cells_are_trained_one_at_a_time(taught):
    output = taught.type("distill", "-m", "T=1,2", *SMALL, KDRUN_FAULT="after_batch:2:raise")
    failed = "3 trainings failed together (RuntimeError: fault injected at after_batch, visit 2)"
    assert f"{failed}: training one at a time" in output
    sweep = json.loads((taught.latest / "sweep.json").read_text())
    assert [cell["status"] for cell in sweep["cells"]] == ["done", "done"]
    assert "failed together" in (taught.latest / "kdrun.log").read_text()


def test_a_full_disk_ends_a_sweep_before_its_cells_and_the_same_command_goes_on(taught):
    words = ["distill", "-m", "T=1,2", *SMALL]
    output = taught.type(*words, code=3, KDRUN_FAULT="in_write:19:enospc")
    assert "cannot write" in output and "MB free there" in output
    assert not (taught.latest / "0").exists()
    taught.type(*words)
    sweep = json.loads((taught.latest / "sweep.json").read_text())
    assert [cell["status"] for cell in sweep["cells"]] == ["done", "done"]


DAMAGE = {
    "empty": lambda b: b"",
    "one byte": lambda b: b[:1],
    "half": lambda b: b[: len(b) // 2],
    "all but one": lambda b: b[:-1],
    "a flipped bit": lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:],
}


@pytest.fixture(scope="module")
def stopped(finished, tmp_path_factory):
    """The small job killed in its third epoch: two checkpoints per learner."""
    from tests.faults.conftest import Desk

    desk = Desk(tmp_path_factory.mktemp("stopped"))
    (teacher,) = finished.outputs.glob("store/teacher-*")
    shutil.copytree(teacher, desk.outputs / "store" / teacher.name)
    desk.type("distill", *SMALL, code=-9, KDRUN_FAULT="after_batch:13:kill")
    return desk


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_loudly_for_the_one_before(desk, stopped, finished, damage):
    shutil.copytree(stopped.outputs, desk.outputs, symlinks=True)
    (folder,) = desk.outputs.glob("store/student-*/checkpoint")
    files = sorted(folder.glob("*.ckpt"))
    assert len(files) == 2
    files[-1].write_bytes(DAMAGE[damage](files[-1].read_bytes()))
    output = desk.type("distill", *SMALL)
    assert f"{files[-1].name} is damaged: moved aside as {files[-1].stem}.corrupt" in output
    assert "student mlp seed 0: resuming after epoch 1, batch 0" in output
    assert "baseline mlp seed 0: resuming after epoch 2, batch 0" in output
    assert desk.results() == finished.results()


def test_a_training_whose_checkpoints_are_all_damaged_is_never_silently_started_over(desk, stopped, finished):
    shutil.copytree(stopped.outputs, desk.outputs, symlinks=True)
    (folder,) = desk.outputs.glob("store/student-*/checkpoint")
    for file in folder.glob("*.ckpt"):
        file.write_bytes(file.read_bytes()[:-1])
    for _ in range(2):
        assert "type the command with force=true" in desk.type("distill", *SMALL, code=3)
    desk.type("distill", *SMALL, "force=true")
    assert desk.results() == finished.results()


def test_a_checkpoint_that_would_run_code_is_refused(desk, stopped):
    import hashlib
    import pickle

    class Bad:
        def __reduce__(self):
            return (open, (str(desk.folder / "touched"), "w"))

    shutil.copytree(stopped.outputs, desk.outputs, symlinks=True)
    (folder,) = desk.outputs.glob("store/student-*/checkpoint")
    content = pickle.dumps(Bad())
    newest = sorted(folder.glob("*.ckpt"))[-1]
    newest.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    assert "is refused" in desk.type("distill", *SMALL, code=3)
    assert not (desk.folder / "touched").exists()


@pytest.mark.parametrize("write", [1, 2, 4, 7, 12, 14])
def test_a_full_disk_names_path_and_room_and_the_same_command_resumes(taught, finished, write):
    output = taught.type("distill", *SMALL, code=3, KDRUN_FAULT=f"in_write:{write}:enospc")
    assert "cannot write " in output and str(taught.outputs.name) in output and "MB free there" in output
    taught.type("distill", *SMALL)
    assert taught.results() == finished.results()


def distill_in(folder, program):
    """Distil in an interpreter of its own, which `program` has changed first."""
    return subprocess.run(
        [sys.executable, "-c", program, "distill", *SMALL, "device=cpu", "workers=0"],
        cwd=folder,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def test_files_that_the_system_does_not_let_grow_are_a_full_disk_too(taught, finished):
    """RLIMIT_FSIZE: the checkpoints are too large, the records are not."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)); "
        "from kdrun.cli import main; main(sys.argv[1:])"
    )
    done = distill_in(taught.folder, program)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot write " in done.stderr and "File too large" in done.stderr
    assert taught.run_record()["status"] == "failed"
    taught.type("distill", *SMALL)
    assert taught.results() == finished.results()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 12_000


def test_a_clock_that_jumps_a_day_changes_no_duration(taught):
    """Seconds come from a monotonic clock."""
    program = (
        "import sys, time, itertools; real = time.time; jumps = itertools.cycle([86400, -86400]); "
        "time.time = lambda: real() + next(jumps); from kdrun.cli import main; main(sys.argv[1:])"
    )
    done = distill_in(taught.folder, program)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in taught.outputs.glob("store/[bs]*/result.json"):
        assert 0 < json.loads(file.read_text())["seconds"] < 60
