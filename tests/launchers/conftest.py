"""Commands that hand their cells to a plugin of Hydra's, in a folder of their own; skipped where it is not here."""

import json
import subprocess
import sys

import pytest

from kdrun import checks
from kdrun.command import plugins
from tests.cli.conftest import Desk

SHORT = ["recipe.epochs=1", "teacher.recipe.epochs=1", "seeds=1", "device=cpu", "workers=0"]


def needs(plugin):
    """Skip where a plugin is not installed, and say how it would be."""
    extra = next(extra for name, extra in plugins.PLUGINS.values() if name == plugin)
    package = plugin.replace("_", "-")
    there = checks.installed(f"hydra_plugins.{plugin}")
    return pytest.mark.skipif(not there, reason=f"{package} is not here: the extra kdrun[{extra}]")


def start(desk, *words):
    """Start a command in a process group of its own, as a terminal does."""
    out = (desk.folder / "said.txt").open("w")
    return subprocess.Popen(
        [sys.executable, "-m", "kdrun", *words],
        cwd=desk.folder,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def latest(desk):
    """Return what the newest sweep's sweep.json holds."""
    return json.loads((desk.folder / "outputs" / "latest" / "sweep.json").read_text())


def trained(desk):
    """Return what the store holds: each artifact's folder -> checksums of its weights and logits, and its numbers."""
    outcome = {}
    for file in desk.folder.glob("outputs/store/*/result.json"):
        result = json.loads(file.read_text())
        sums = {k: v for k, v in result["checksums"].items() if k.endswith(".safetensors")}
        outcome[file.parent.name] = [sums, result["selected"], result["last"]]
    return outcome


@pytest.fixture
def desk(tmp_path):
    """An empty folder to type commands in."""
    return Desk(tmp_path)
