"""A desk at which commands are started in several processes, as torchrun starts them, but from a warm interpreter."""

import csv
import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests import warm

# Short, of unequal shares (33 images for two processes), with a last batch too small to be split (431 = 13 * 33 + 2).
SMALL = [
    "dataset.crop_padding=1", "dataset.flip=true", "transfer.fraction=0.3333", "teacher=mlp", "teacher.hidden=[48,24]",
    "teacher.recipe.epochs=1", "teacher.recipe.batch_size=256", "seeds=1", "recipe.epochs=2", "recipe.batch_size=33",
]  # fmt: skip
TIMED = ("seconds", "images_per_second")


@dataclass
class Crew:
    """The processes of one command."""

    pids: list[int]
    outs: list[Path]

    def output(self, rank=0):
        """Return what a process printed so far."""
        return self.outs[rank].read_text() if self.outs[rank].exists() else ""

    def until(self, text, times=1, seconds=60):
        """Wait until the first process has printed `text`."""
        end = time.monotonic() + seconds
        while self.output().count(text) < times:
            assert time.monotonic() < end, self.output()
            time.sleep(0.005)

    def signal(self, number, rank):
        """Send a signal to one of the processes."""
        os.kill(self.pids[rank], number)

    def wait(self, seconds=60):
        """Wait for the end of all; give their exit codes (minus the signal's number where one killed it)."""
        end = time.monotonic() + seconds
        while any(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in self.pids):
            if time.monotonic() > end:
                for pid in self.pids:
                    os.kill(pid, signal.SIGKILL)
                raise AssertionError("\n".join(self.output(rank) for rank in range(len(self.pids))))
            time.sleep(0.01)
        return [warm.server().wait(pid) for pid in self.pids]


class Desk:
    """A folder to type commands in."""

    def __init__(self, folder):
        self.folder, self.typed = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, ranks, *words, env=None, only=None):
        """Start a command in as many processes; `env` is for all of them, or for the one of rank `only`."""
        self.typed += 1
        place = {
            "WORLD_SIZE": ranks,
            "LOCAL_WORLD_SIZE": ranks,
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": _free_port(),
        }
        place = {key: str(value) for key, value in place.items()}
        pids, outs = [], []
        for rank in range(ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "test"} if ranks > 1 else {}
            own |= env or {} if only in (None, rank) else {}
            outs.append(self.folder / f"said-{self.typed}-{rank}.txt")
            argv = [*words, "device=cpu", "workers=0"] if any("=" in word for word in words) else list(words)
            pids.append(warm.server().start(argv, self.folder, outs[-1], **place, **own))
        return Crew(pids, outs)

    def type(self, ranks, *words, code=0):
        """Type a command, expect its exit code, and give what it printed; the other processes print nothing."""
        crew = self.start(ranks, *words)
        codes = crew.wait()
        everything = "\n".join(crew.output(rank) for rank in range(ranks))
        assert codes == [code] + [0] * (ranks - 1), f"{codes}\n{everything}"
        assert "Traceback" not in everything
        assert not any(crew.output(rank) for rank in range(1, ranks)), everything
        return crew.output()

    def results(self):
        """Return what the store holds: folder -> result, and history without times."""
        result = {}
        for file in (self.folder / "outputs").glob("store/*/result.json"):
            rows = list(csv.DictReader((file.parent / "history.csv").open()))
            history = [{k: float(v) for k, v in row.items() if k not in TIMED} for row in rows]
            result[file.parent.name] = (json.loads(file.read_text()), history)
        return result

    def listing(self):
        """Everything in the folder but what commands printed."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if "said-" not in p.name)


def _free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture
def desk(tmp_path):
    """An empty folder to work in."""
    return Desk(tmp_path / "desk")


@pytest.fixture
def desks(tmp_path):
    """Two empty folders: for one process, and for several."""
    return Desk(tmp_path / "one"), Desk(tmp_path / "several")


def assert_alike(one, several, *, tolerance=1e-5, ties=0.0):
    """The same trainings with the same losses and accuracies, as far as another order of sums allows.

    A network that has learned little may be undecided about a share of images, `ties`.
    """
    alone, split = one.results(), several.results()
    assert alone and alone.keys() == split.keys()
    for name, (result, history) in alone.items():
        other, rows = split[name]
        assert len(history) == len(rows)
        assert result["ranks"] == 1 and other["ranks"] > 1
        for row, same in zip(history, rows, strict=True):
            assert_close(same, row, tolerance, ties)
        for epoch in ("selected", "last"):
            for part in ("train", "val", "test"):
                assert_close(other[epoch][part], result[epoch][part], tolerance, ties)


def assert_close(numbers, expected, tolerance, ties):
    """Equal keys, and values to a relative tolerance; accuracies may differ by `ties` as well."""
    assert numbers.keys() == expected.keys()
    for key, value in expected.items():
        slack = ties if key.endswith("accuracy") else 0.0
        assert numbers[key] == pytest.approx(value, rel=tolerance, abs=slack, nan_ok=True), key
