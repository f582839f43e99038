"""A process that decodes images and is stopped: noticed in time, exit 3, nothing left behind, nothing lost."""

import os
import signal
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.faults.conftest import Desk


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A baseline that streams its images through two processes, and is quick."""
    root = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    for part, count in (("train", 400), ("test", 4)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return [
        "train", "baseline", "dataset=folder", f"dataset.root={root}", "dataset.max_resident_gb=0", "student=mlp",
        "student.hidden=[8]", "seeds=1", "recipe.warmup_epochs=0", "recipe.batch_size=2", "workers=2",
        "dataset.val_fraction=0", "recipe.epochs=20",
    ]  # fmt: skip


def stopped_workers(command):
    """Stop the processes that decode for a command, in the midst of its second epoch, and give them."""
    command.until("epoch 1/20")
    time.sleep(0.1)
    workers = psutil.Process(command.pid).children()
    assert len(workers) == 2
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    return workers


def assert_gone(workers):
    end = time.monotonic() + 5
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < end, workers
        time.sleep(0.01)


def test_workers_that_are_stopped_are_noticed_and_killed_and_the_same_command_resumes(tmp_path, words):
    desk = Desk(tmp_path)
    words = [*words, "data_timeout=1"]
    command = desk.start(*words)
    workers = stopped_workers(command)
    code, sentence = command.wait(), command.output()
    assert code == 3, sentence
    assert "no batch of images for" in sentence and "type data_timeout=" in sentence
    assert "Traceback" not in sentence and desk.run_record()["status"] == "failed"
    assert_gone(workers)
    again = desk.start(*words)
    again.until(": resuming after epoch ")
    again.signal(signal.SIGTERM)
    assert again.wait() == 75


def test_a_signal_while_stopped_workers_are_waited_for_saves_and_exits_75(tmp_path, words):
    desk = Desk(tmp_path)
    command = desk.start(*words)
    workers = stopped_workers(command)
    time.sleep(0.3)  # the batches that were decoded ahead are trained on; the next one is waited for
    command.signal(signal.SIGTERM)
    began = time.monotonic()
    assert command.wait() == 75, command.output()
    assert time.monotonic() - began < 10
    assert_gone(workers)


def test_a_command_that_was_stopped_itself_does_not_take_that_for_stuck_workers(tmp_path, words):
    desk = Desk(tmp_path)
    command = desk.start(*words, "data_timeout=0.5")
    command.until("epoch 1/20")
    family = [psutil.Process(command.pid), *psutil.Process(command.pid).children()]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    for process in reversed(family):
        os.kill(process.pid, signal.SIGCONT)
    command.until(", epoch ", times=command.output().count(", epoch ") + 2)
    command.signal(signal.SIGTERM)
    assert command.wait() == 75, command.output()
