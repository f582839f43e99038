"""Signals, deaths and refusals: what several processes do when one of them is to stop, or stops."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from kdrun.files import RunFailed
from kdrun.training.distributed import Ranks
from tests.distributed.conftest import SMALL

DROPPING = [
    *SMALL,
    "student=mlp",
    "student.hidden=[16]",
    "student.dropout=0.2",
    "recipe.ema_decay=0.9",
    "loss=[kd,crd]",
]
LONG = [*SMALL, "recipe.epochs=400"]


def checkpoints(desk):
    return sorted(p.parents[1].name.split("-")[0] for p in desk.folder.glob("outputs/store/*/checkpoint/*.ckpt"))


@pytest.mark.parametrize("ranks, rank", [(2, 1), pytest.param(3, 0, marks=pytest.mark.slow)])
def test_a_signal_to_any_process_stops_all_after_one_batch_and_the_same_command_ends_bit_for_bit(desks, ranks, rank):
    """Three processes add three numbers, whose order counts, and so must be that of the uninterrupted training."""
    whole, stopped = desks
    whole.type(ranks, "distill", *DROPPING)
    crew = stopped.start(ranks, "distill", *DROPPING, env={"KDRUN_FAULT": "after_batch:23:term"}, only=rank)
    assert crew.wait() == [
        75,
        *[0] * (ranks - 1),
    ]  # in the third batch of the second epoch: six are the teacher's, 14 the first's
    assert "the same command resumes" in crew.output()
    output = stopped.type(ranks, "distill", *DROPPING)
    assert output.count("resuming after epoch 1, batch 4") == 2  # where all have heard of it
    for name, (result, history) in whole.results().items():
        again, rows = stopped.results()[name]
        assert again["checksums"]["model.safetensors"] == result["checksums"]["model.safetensors"]
        assert rows == history


@pytest.mark.slow
def test_a_checkpoint_that_the_first_process_writes_within_an_epoch_is_one_for_all(desks):
    whole, killed = desks
    words = ["distill", *DROPPING, "checkpoint_every=3steps"]
    whole.type(2, *words)
    crew = killed.start(2, *words, env={"KDRUN_FAULT": "after_batch:27:kill"}, only=0)
    assert crew.wait() == [-9, 3]  # in the seventh batch of the second epoch: six are the teacher's, 14 the first's
    assert killed.type(2, *words).count("resuming after epoch 1, batch 4") == 2  # 3, 6, 9, 12, then 1 and 4
    for name, (result, history) in whole.results().items():
        again, rows = killed.results()[name]
        assert again["checksums"]["model.safetensors"] == result["checksums"]["model.safetensors"]
        assert rows == history


def test_one_process_takes_up_what_two_have_begun(desk):
    crew = desk.start(2, "distill", *SMALL, env={"KDRUN_FAULT": "after_batch:23:term"}, only=0)
    assert crew.wait() == [75, 0]
    assert desk.type(1, "distill", *SMALL).count(": resuming after epoch 1, batch ") == 2
    assert "found" in desk.type(2, "distill", *SMALL)


@pytest.mark.parametrize("rank", [0, 1])
def test_when_a_process_is_killed_the_other_ends_at_once_and_the_same_command_resumes(desk, rank):
    crew = desk.start(2, "distill", *LONG)
    crew.until("epoch 2/400")
    crew.signal(signal.SIGKILL, rank)
    codes = crew.wait(seconds=10)
    assert codes == ([-9, 3] if rank == 0 else [3, -9])
    if rank == 1:
        assert "one of the 2 processes that train together has ended" in crew.output()
        assert "Traceback" not in crew.output()
    crew = desk.start(2, "distill", *LONG)
    crew.until(": resuming after epoch ", times=2)
    crew.signal(signal.SIGTERM, 0)
    assert crew.wait() == [75, 0]


def test_when_one_process_fails_no_other_waits_and_it_says_why(desk):
    crew = desk.start(2, "distill", *LONG, env={"KDRUN_FAULT": "after_batch:20:raise"}, only=1)
    assert crew.wait(seconds=30) == [3, 3]
    assert "process 1: RuntimeError: fault injected" in crew.output(1)
    assert "has ended" in crew.output(0)


def test_after_a_failure_a_sweep_ends_with_its_table(desk):
    crew = desk.start(2, "distill", "-m", "T=1,2", *SMALL, env={"KDRUN_FAULT": "in_write:4:enospc"}, only=0)
    assert crew.wait(seconds=30)[0] == 3
    table = json.loads(next(desk.folder.glob("outputs/sweeps/*/*/sweep.json")).read_text())
    assert table["status"] == "failed"


def test_a_training_that_diverges_does_so_in_all_processes_and_the_rest_goes_on(desk):
    words = ["distill", "loss=kd", *SMALL, "students=[mlp,digits_student]", "recipe.optimizer=sgd", "recipe.lr=1e30"]
    output = desk.type(2, *words, code=3)
    results = {name.split("-")[0]: result["status"] for name, (result, _) in desk.results().items()}
    assert results == {"teacher": "done", "baseline": "diverged", "student": "diverged"}
    assert "trainings diverged" in output


def test_a_process_without_memory_says_so_and_no_further_training_begins():
    ranks = Ranks(1, 2)
    sentence = r"out of memory in process 1 of 2; type a smaller recipe\.batch_size, or more"
    with pytest.raises(RunFailed, match=sentence), ranks.collective():
        raise torch.OutOfMemoryError("no more")
    with pytest.raises(RunFailed, match="an earlier training failed"):
        ranks.send("a job")


def test_bad_input_is_refused_once_by_the_first_process_and_leaves_nothing(desk):
    before = desk.listing()
    assert "3 of 3 to train" in desk.type(2, "distill", *SMALL, "plan=true")
    assert "T=0" in desk.type(2, "distill", *SMALL, "T=0", code=2)
    output = desk.type(3, "distill", *SMALL, "recipe.batch_size=4", code=2)
    assert "3 processes share each batch, and batch_size=4 is less than two images for each" in output
    assert "type a recipe.batch_size of at least 6, or --nproc-per-node 2" in output
    assert [name for name in desk.listing() if name not in before] == []


def test_a_launcher_with_processes_of_its_own_is_refused(desk):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    output = desk.type(2, "distill", "-m", "T=1,2", *SMALL, "hydra/launcher=joblib", code=2)
    assert "hydra/launcher=joblib: starts its own processes" in output


def test_only_the_first_process_writes_and_a_second_command_finds_what_is_there(desk):
    desk.type(2, "distill", *SMALL)
    assert len(list(desk.folder.glob("outputs/runs/distill/*"))) == 1
    names = [name.split("-")[0] for name in desk.results()]
    assert sorted(names) == ["baseline", "student", "teacher"]
    comparison = next(desk.folder.glob("outputs/runs/distill/*/comparison.json")).read_text()
    assert json.loads(comparison)["rows"]
    assert "2 processes" in next(desk.folder.glob("outputs/runs/distill/*/comparison.md")).read_text()
    assert ", trained by 2 processes" in desk.type(1, "distill", *SMALL)
    assert desk.type(2, "runs").count("distill") == 2


def test_batchnorm_on_cpus_is_each_process_s_own_and_that_is_said_once(desk):
    words = ["distill", *SMALL, "student=digits_teacher", "student.widths=[8,8]"]
    output = desk.type(2, *words)
    assert output.count("BatchNorm: on a CPU each process computes statistics over its own share of a batch") == 1
    (name,) = (name for name in desk.results() if name.startswith("student"))
    assert desk.results()[name][0]["selected"]["test"]["accuracy"] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_torchrun_hands_a_signal_on_and_what_was_trained_is_kept(desk, number):
    """The command as a user types it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KDRUN_", "TORCH_CPP"))}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "kdrun"]
    with open(desk.folder / "said.txt", "w") as out:
        command = subprocess.Popen(
            [*start, "distill", *LONG, "device=cpu"],
            cwd=desk.folder,
            env={**env, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def as_typed():
        return (desk.folder / "said.txt").read_text()

    end = time.monotonic() + 120
    while "epoch 2/400" not in as_typed():
        assert time.monotonic() < end and command.poll() is None, as_typed()
        time.sleep(0.05)
    ranks = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(number)
    command.wait(timeout=30)
    assert not any(rank.is_running() for rank in ranks)
    assert "the same command resumes" in as_typed() and "kdrun: " not in as_typed()
    record = json.loads((desk.folder / "outputs" / "latest" / "run.json").read_text())
    assert record["status"] == "interrupted" and record["command"].startswith("torchrun --nproc-per-node 2 -m kdrun ")
    assert set(checkpoints(desk)) == {"baseline", "student"}
