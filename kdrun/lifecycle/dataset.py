"""The images of a finished run, even if they were moved or the command is typed in another folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kdrun import data
from kdrun.data.sets import Dataset
from kdrun.results.runs import Run


def dataset_of(run: Run, place: Mapping[str, Any], *, whole: bool = False) -> Dataset:
    """Load the images that a run used, from the `place` that was typed or else from where they were during the run.

    `place` has the keys of `config.Place`. With `whole`, no training images are held out. The run's working folder is
    added to sys.path, for the user's own code. Raise ValueError if the images are unknown or cannot be read, or if the
    data set has no such key of `place`.
    """
    try:
        settings, name = dict(run.config["dataset"]), str(run.record["choices"]["dataset"])
    except KeyError as error:
        raise ValueError(f"{run.name}: its run.json has no {error}, so its data are unknown") from None
    then = _working_folder(run)
    if str(then) not in sys.path:
        sys.path.append(str(then))
    for key, typed in place.items():
        if typed is not None and key not in settings:
            other = next((f"is read from dataset.{one}; type that" for one in place if one in settings), "")
            raise ValueError(
                f"dataset.{key}={typed}: {name} {other or 'has no files that could have moved; leave it out'}"
            )
        if key in settings:
            settings[key] = _located(settings[key], then) if typed is None else typed
    if whole:
        settings["val_fraction"] = 0.0
    return data.load(settings.pop("use"), name=name, **settings)


def _located(root: Any, then: Path) -> Any:
    """Return a root resolved against the run's working folder if it exists there, otherwise unchanged."""
    if isinstance(root, list):
        return [_located(one, then) for one in root]
    if root is None:
        return None
    place = then / Path(str(root)).expanduser()
    return str(place) if place.exists() else root


def _working_folder(run: Run) -> Path:
    """Return the folder in which a run's command was typed, as Hydra recorded it, or else the current folder."""
    try:
        recorded = yaml.safe_load((run.folder / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))
        return Path(recorded["hydra"]["runtime"]["cwd"])
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return Path.cwd()
