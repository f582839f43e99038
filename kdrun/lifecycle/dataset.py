"""The images of a finished run, from wherever they lie now and whatever folder the command is typed in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from kdrun import data
from kdrun.data.sets import Dataset
from kdrun.results.runs import Run


def dataset_of(run: Run, root: Any) -> Dataset:
    """Load the images that a run was made on: from `root` where that was typed, or else from where they lay then.

    A network class of the user's own is looked for in the run's working folder too. Raises ValueError where the
    images cannot be read, where they come without files, and for a typed root that holds others.
    """
    settings = dict(run.record["config"]["dataset"])
    name, then = str(run.record["choices"]["dataset"]), _working_folder(run)
    if str(then) not in sys.path:
        sys.path.append(str(then))
    if root is not None and "root" not in settings:
        raise ValueError(f"dataset.root={root}: {name} has no files that could have moved; leave it out")
    if "root" in settings:
        settings["root"] = _found(settings["root"], then) if root is None else root
    return data.load(settings.pop("use"), name=name, **settings)


def _found(root: Any, then: Path) -> Any:
    """Read what was typed in a run's working folder as it was meant there, if that is still there."""
    if isinstance(root, list):
        return [_found(one, then) for one in root]
    if root is None:
        return None
    place = then / Path(str(root)).expanduser()
    return str(place) if place.exists() else root


def _working_folder(run: Run) -> Path:
    """Return the folder that a run's command was typed in, as Hydra recorded it; where that is gone the present one."""
    try:
        told = yaml.safe_load((run.folder / ".hydra" / "hydra.yaml").read_text())
        return Path(told["hydra"]["runtime"]["cwd"])
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return Path.cwd()
