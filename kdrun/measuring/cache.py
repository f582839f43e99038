"""Measurements of a trained network, stored in its artifact: ARTIFACT/measured/KIND-KEY.json. No torch.

The key is a checksum of all settings that determine the numbers, so that a second evaluation finds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdrun.spec import canonical
from kdrun.store import write_atomic
from kdrun.version import __version__

WHOLE = {  # the keys that are read of each kind; a file without them, of another version or cut short, is ignored
    "robustness": {"complete", "device", "images", "accuracy"},
    "cost": {"sitting", "macs", "latency", "memory"},
}


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
    write_atomic(path, (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode())


def cached(artifact: Path, kind: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the measurement under these settings; None if there is none, or if its file is incomplete."""
    return _read(artifact / "measured" / f"{kind}-{key(settings)}.json", kind)


def all_cached(artifact: Path, kind: str) -> list[dict[str, Any]]:
    """Return all measurements of a kind, whatever the settings, the newest first."""
    contents = [read for path in (artifact / "measured").glob(f"{kind}-*.json") if (read := _read(path, kind))]
    return sorted(contents, key=lambda content: str(content["created"]), reverse=True)


def _read(path: Path, kind: str) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(content, dict) and {"settings", "created", *WHOLE[kind]} <= set(content)
    return content if whole and isinstance(content["settings"], dict) else None
