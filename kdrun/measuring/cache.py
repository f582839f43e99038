"""Measurements of a trained network, stored in its artifact: ARTIFACT/measured/KIND-KEY.json. No torch.

KEY is a checksum of all settings that determine the numbers, so that a later evaluation under the same settings finds
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from kdrun import sealed
from kdrun.files import write_atomic
from kdrun.spec import canonical
from kdrun.version import __version__

# the keys that each kind must have; a file without them (of another version, changed or truncated) is ignored
WHOLE = {
    "robustness": {"complete", "device", "images", "accuracy"},
    "cost": {"sitting", "macs", "latency", "memory"},
}


class MeasuredJson(TypedDict):
    """The keys that measurements of every kind have."""

    settings: dict[str, Any]
    created: str


def key(settings: Mapping[str, Any]) -> str:
    """Return the first 12 hex digits of the sha256 of the settings' canonical JSON."""
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:12]


def cache(artifact: Path, kind: str, settings: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Write a measurement under these settings into an artifact's folder. Raise CannotWrite if the disk is full."""
    whole = {
        "kind": kind,
        "settings": settings,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "kdrun": __version__,
        **content,
    }
    path = artifact / "measured" / f"{kind}-{key(settings)}.json"
    write_atomic(path, sealed.seal(whole))


def cached(artifact: Path, kind: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the measurement under these settings; None if there is none, or if its file is incomplete."""
    return _read(artifact / "measured" / f"{kind}-{key(settings)}.json", kind)


def all_cached(artifact: Path, kind: str) -> list[dict[str, Any]]:
    """Return all measurements of a kind, whatever the settings, the newest first."""
    contents = [read for path in (artifact / "measured").glob(f"{kind}-*.json") if (read := _read(path, kind))]
    return sorted(contents, key=lambda content: str(content["created"]), reverse=True)


def _read(path: Path, kind: str) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = dict(sealed.read(path, MeasuredJson))
    except (OSError, ValueError):
        return None
    return content if WHOLE[kind] <= set(content) else None
