"""A desk to type commands at, in real processes that can be killed, and a small job to type."""

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import warm

# Augmentation, dropout and EMA on; after the teacher (1 epoch of 3 batches) 3 epochs of 5 batches for
# baseline and student, which train as one cohort.
TEACHER = ["dataset.crop_padding=1", "dataset.flip=true", "teacher.recipe.epochs=1", "teacher.recipe.batch_size=512"]
SMALL = [
    *TEACHER, "student=mlp", "student.hidden=[16]", "student.dropout=0.2", "transfer.fraction=0.1", "seeds=1",
    "recipe.epochs=3", "recipe.batch_size=28", "recipe.schedule=cosine", "recipe.ema_decay=0.9",
]  # fmt: skip


@dataclass
class Command:
    """A command that was started."""

    pid: int
    out: Path

    def wait(self):
        """Wait for its end; give the exit code (minus the signal's number where one killed it)."""
        return warm.server().wait(self.pid)

    def output(self):
        """Return what it printed so far."""
        return self.out.read_text() if self.out.exists() else ""

    def until(self, text, times=1, seconds=60):
        """Wait until it has printed `text`, and give what it printed."""
        end = time.monotonic() + seconds
        while self.output().count(text) < times:
            assert time.monotonic() < end, self.output()
            time.sleep(0.005)
        return self.output()

    def signal(self, number):
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Desk:
    """A folder to work in."""

    def __init__(self, folder):
        self.folder, self.typed = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def outputs(self):
        return self.folder / "outputs"

    @property
    def latest(self):
        return (self.outputs / "latest").resolve()

    def start(self, *words, **env):
        """Start a command and give it, running."""
        self.typed += 1
        out = self.folder / f"said-{self.typed}.txt"
        settings = next(i for i, word in enumerate(words) if "=" in word)
        argv = [*words[:settings], "device=cpu", "workers=0", *words[settings:]]
        return Command(warm.server().start(argv, self.folder, out, **env), out)

    def type(self, *words, code=0, **env):
        """Type a command, expect its exit code, and give what it printed."""
        command = self.start(*words, **env)
        got = command.wait()
        assert got == code, f"exit code {got}\n{command.output()}"
        assert "Traceback" not in command.output(), command.output()
        return command.output()

    def results(self):
        """Return what the store holds: role -> everything that must not differ between two trainings of one spec."""
        outcome = {}
        for file in self.outputs.glob("store/*/result.json"):
            result = json.loads(file.read_text())
            rows = [line.split(",") for line in (file.parent / "history.csv").read_text().splitlines()]
            timed = {rows[0].index("seconds"), rows[0].index("images_per_second")}
            outcome[file.parent.name] = {
                "sha256": {k: v for k, v in result["checksums"].items() if k.endswith(".safetensors")},
                "selected": result["selected"],
                "last": result["last"],
                "history": [[v for i, v in enumerate(row) if i not in timed] for row in rows],
            }
        return outcome

    def run_record(self):
        return json.loads((self.latest / "run.json").read_text())


@pytest.fixture
def desk(tmp_path):
    """An empty folder to work in."""
    return Desk(tmp_path / "desk")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The small job, uninterrupted: what every interrupted one must end with."""
    desk = Desk(tmp_path_factory.mktemp("finished"))
    desk.type("distill", *SMALL)
    return desk


@pytest.fixture
def taught(desk, finished):
    """A desk where the small job's teacher is trained already, and nothing else."""
    (teacher,) = finished.outputs.glob("store/teacher-*")
    shutil.copytree(teacher, desk.outputs / "store" / teacher.name)
    return desk
