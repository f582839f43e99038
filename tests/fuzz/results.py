"""Results as they are read back: through the commands that list and report them, in this process."""

import contextlib
import io
from pathlib import Path
from typing import Any
from unittest import mock

from kdrun import cli
from kdrun.results.networks import StoredNetwork
from kdrun.store import Store
from tests import warm
from tests.fuzz import judge
from tests.fuzz.kinds import REFUSED, Kind, scratch

NOTICED = ("damaged", "unreadable", "no run.json", "no sweep.json", "cannot read")
"""Words by which a table says that it leaves something out."""
READ = (".json", ".safetensors", ".csv")
COMMAND = [
    "distill", "-m", "T=1,2", "seeds=1", "device=cpu", "recipe.epochs=1", "teacher.recipe.epochs=1", "teacher=mlp",
    "teacher.hidden=[4]", "student=mlp", "student.hidden=[4]", "transfer.fraction=0.2", "workers=0",
]  # fmt: skip


def outputs() -> dict[str, bytes]:
    """Return what a small sweep leaves, made by the command itself."""
    with scratch() as place:
        done = warm.type_(place, *COMMAND, KDRUN_REPORT="false", KDRUN_TRACKER="none")
        assert done.returncode == 0, done.stdout + done.stderr
        return {name: content for name, content in judge.taken(place).items() if name.endswith(READ)}


class Refused(Exception):
    """A command said what is wrong and ended with 2 or 3."""


def typed(*words: str) -> str:
    """Run a command in this process and return what it printed. Raise Refused if it ends with 2 or 3."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli.main(list(words))
            code: Any = None
        except SystemExit as end:
            code = end.code
    text = printed.getvalue() + (code if isinstance(code, str) else "")
    if "Traceback" in text:
        raise AssertionError(text)
    if code in (2, 3):
        raise Refused(text)
    if code != 0:
        raise AssertionError(f"ended with {code!r}: {text}")
    return text


def _shown(folder: Path) -> Any:
    """Return what the listing and the report print, where they do not say that something is damaged."""
    with mock.patch("kdrun.verbs.report._page", return_value="the page"):  # its pictures take seconds
        texts = [typed("runs"), typed("report")]
    if any(word in text for text in texts for word in NOTICED):
        raise Refused(" ".join(texts))
    return texts


def _results(folder: Path) -> Any:
    """Return what is in the store, as the comparison and the report read it."""
    store = Store(folder / "outputs/store")
    artifacts = [store.find(place.name[-12:]) for place in sorted(store.root.glob("*-*"))]
    if None in artifacts:
        raise Refused("an artifact does not exist any more")
    return [(a.result, StoredNetwork.read(a.folder), a.fingerprint) for a in artifacts if a]


def of_results(files: dict[str, bytes]) -> list[Kind]:
    """Return the kinds of files that runs and sweeps are read back from."""
    kinds = []
    for name, read in (("result.json", _results), *((f"{n}.json", _shown) for n in ("run", "sweep", "comparison"))):
        targets = [path for path in files if path.endswith(f"/{name}")]
        kinds.append(Kind(name, read, files, targets, (*REFUSED, Refused)))
    return kinds
