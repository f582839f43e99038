"""Find what a typed name means: a run, a sweep, an artifact of the store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from kdrun.artifact import read_result
from kdrun.checks import nearest, typed_path
from kdrun.records import ArtifactJson
from kdrun.results.runs import Run, all_runs, called, cells_in, read_run, short


class Stored(NamedTuple):
    """A training's fingerprint, and the store that holds it."""

    fingerprint: str
    store: Path


def find_run(name: str, outputs: Path) -> Path:
    """Return the run folder that `name` means: a folder, a run's name, its start or its last part, or latest.

    Raise ValueError, naming what exists, if there is no such run, or if several runs match.
    """
    folder = find_folder(name, outputs)
    if (folder / "run.json").is_file():
        return folder
    cells = [run.folder for run in cells_in(folder) if (run.folder / "run.json").is_file()]
    one = f"; name one of its cells, such as {folder.name}/{cells[0].name}" if cells else " without a finished cell"
    raise ValueError(f"{name}: is a sweep{one}")


def find_folder(name: str, outputs: Path) -> Path:
    """Return the folder of the run or of the sweep that `name` means. Raise ValueError if there is none."""
    for folder in (typed_path(name), outputs / name):
        if (folder / "run.json").is_file() or (folder / "sweep.json").is_file():
            return folder.resolve()
    runs = all_runs(outputs)
    if name == "latest" and runs:  # on a file system without links
        return (runs[0].folder.parent if "/" in runs[0].name else runs[0].folder).resolve()
    known = {run.name: run.folder for run in runs if (run.folder / "run.json").is_file()}
    known |= {run.folder.parent.name: run.folder.parent for run in runs if "/" in run.name}
    matching = [n for n in known if name and (n.startswith(name) or short(n) == name)]
    # a sweep and its cells begin with the same name, which means the sweep
    matching = [n for n in matching if n.rpartition("/")[0] not in matching]
    if name in known or len(matching) == 1:
        return known[name if name in known else matching[0]].resolve()
    if matching:
        raise ValueError(f"{name}: {len(matching)} runs begin like this: {', '.join(matching[:5])}")
    there = (
        f"{nearest(name, known)} The newest is {runs[0].name}; kdrun runs lists all runs"
        if known
        else " There are none yet"
    )
    place = Path(name).expanduser()
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise ValueError(f"{name}: is neither a run nor a regular file.{there}")
    file = "file or folder, and no such " if "/" in name or place.suffix in (".safetensors", ".pt", ".pth") else ""
    raise ValueError(f"{name}: there is no such {file}run under {outputs}.{there}")


def find_artifact(name: str, role: str, outputs: Path, *, seed: int | None = None) -> Stored:
    """Return the artifact that `name` means: a fingerprint, a folder of the store, or a run's network of `role`.

    `role` may be the network's label in the run's table (`generation 2`), followed by its student if there are several
    (`student resnet20`). Raise ValueError if there is no such network, or if there are several.
    """
    if known := stored(name, outputs):
        return known
    run = read_run(find_run(name, outputs))
    if not run.record:
        raise ValueError(f"{name}: {run.reason}")
    return Stored(str(entries(name, run, role, seed)[0]["fingerprint"]), run.store(outputs))


def stored(name: str, outputs: Path) -> Stored | None:
    """Return the artifact if `name` is a fingerprint or a folder of a store, else None."""
    if re.fullmatch("[0-9a-f]{12}", name) and any((outputs / "store").glob(f"*-{name}/result.json")):
        return Stored(name, outputs / "store")
    folder = typed_path(name).resolve()
    if (folder / "spec.json").is_file():
        try:
            return Stored(read_result(folder)["fingerprint"], folder.parent)
        except FileNotFoundError:
            raise ValueError(f"{name}: no result.json, so its training is unfinished") from None
    return None


def entries(name: str, run: Run, role: str, seed: int | None = None) -> list[ArtifactJson]:
    """Return a run's entries in run.json for the network that `role` means, one for each seed.

    Raise ValueError, which begins with the run's `name`, if there is no such network, or if there are several.
    """
    used = run.record.get("artifacts") or []
    fitting = [a for a in used if role in called(a) and seed in (None, a["seed"])]
    fitting = fitting or [a for a in used if role == a["role"] and seed in (None, a["seed"])]
    if not fitting:
        there = ", ".join(f"{called(a)[0]} seed {a['seed']}" for a in used) or "no networks"
        wanted = role if seed is None else f"{role} of seed {seed}"
        raise ValueError(f"{name}: that run has no {wanted}; it has {there}: choose by role and seed")
    alike = [a for a in fitting if a["seed"] == fitting[0]["seed"] or called(a) != called(fitting[0])]
    if len({a["fingerprint"] for a in alike}) > 1:
        first = {called(a)[0]: a for a in reversed(alike)}
        known = [f"{what} {a['fingerprint']}" for what, a in reversed(first.items())]
        known = known if len(first) > 1 else [a["folder"] for a in alike]
        raise ValueError(
            f"{name}: that run has several networks called {role}: {', '.join(known)}; name one by its fingerprint"
        )
    return fitting
