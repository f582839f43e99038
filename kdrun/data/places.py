"""Where data lie and where decoded copies are kept. Knows no torch."""

import os
from pathlib import Path


def data_root(root: str | None = None) -> Path:
    """The folder of the downloaded sets: `root` as typed, else KDRUN_DATA, else ~/.cache/kdrun."""
    return Path(root or os.environ.get("KDRUN_DATA") or "~/.cache/kdrun").expanduser()


def cache_root() -> Path:
    """The folder of decoded copies, deleted without harm: KDRUN_CACHE, else ~/.cache/kdrun/decoded."""
    return Path(os.environ.get("KDRUN_CACHE") or "~/.cache/kdrun/decoded").expanduser()
