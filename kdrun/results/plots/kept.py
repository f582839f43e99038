"""A cache of pictures: one that was drawn of the same numbers before is copied, not redrawn. Imports no matplotlib.

It is OUTPUTS/.pictures, with a folder for each set of inputs, and may be deleted at any time.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kdrun.config import PNG
from kdrun.files import write_atomic
from kdrun.spec import canonical, finite
from kdrun.version import __version__

log = logging.getLogger(__name__)
PLACE = ".pictures"  # in the outputs folder
MOST = 64  # folders; those that were used least recently are removed


@dataclass(frozen=True)
class Pictures:
    """How pictures are drawn now: whether as PNG too, and the cache's folder for their inputs, if there is a cache."""

    png: bool = False
    kept: Path | None = None

    def files(self, name: str) -> list[str]:
        """Return the files of a picture: for a page, for a telephone, and perhaps a PNG."""
        return [f"{name}.svg", f"{name}-narrow.svg", *([f"{name}.png"] if self.png else [])]

    def copy(self, name: str, folder: Path) -> bool:
        """Copy a picture's files from the cache into a folder; return whether all were there and undamaged."""
        if self.kept is None:
            return False
        try:
            contents = {file: gzip.decompress((self.kept / f"{file}.gz").read_bytes()) for file in self.files(name)}
        except (OSError, EOFError, zlib.error):
            return False
        for file, content in contents.items():
            write_atomic(folder / file, content)
        return True

    def keep(self, name: str, folder: Path) -> None:
        """Put a picture's files into the cache; if that fails, the next command draws them again."""
        if self.kept is None:
            return
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
            for file in self.files(name):
                part = self.kept / f".{file}.{os.getpid()}"
                part.write_bytes(gzip.compress((folder / file).read_bytes(), compresslevel=3, mtime=0))
                part.replace(self.kept / f"{file}.gz")
        except OSError as error:
            log.debug("%s is not kept: %s", name, error)


_now: ContextVar[Pictures | None] = ContextVar("pictures", default=None)


def now() -> Pictures:
    """Return how pictures are drawn now; outside `pictures_of`, KDRUN_REPORT decides and there is no cache."""
    return _now.get() or Pictures(png=os.environ.get("KDRUN_REPORT") == PNG)


@contextmanager
def pictures_of(made_of: object, store: Path | None, report: object) -> Iterator[None]:
    """Within this context, copy pictures that an earlier command drew of the same inputs, and cache all others.

    `made_of` is JSON that contains, or names by checksum, everything that the pictures show. The cache is beside the
    `store`; without a store there is none. `report` is the setting of that name.
    """
    digest = hashlib.sha256(canonical(finite([made_of, _code()])).encode()).hexdigest()[:24]
    kept = store.parent / PLACE / digest if store is not None and store.is_dir() else None
    before = _now.set(Pictures(report == PNG or now().png, kept))
    try:
        yield
    finally:
        _now.reset(before)
        if kept is not None:
            _tidy(kept)


def checksums(files: Iterable[Path]) -> dict[str, str]:
    """Return the sha256 of each file that exists, by its name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


@cache
def _code() -> Sequence[str]:
    """Return the versions of kdrun and matplotlib, and a checksum of kdrun's modules for numbers and pictures."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for room in ("evaluation", "measuring", "results"):
        for file in sorted((package / room).rglob("*.py")):
            digest.update(file.read_bytes())
    return [__version__, digest.hexdigest(), importlib.metadata.version("matplotlib")]


def _tidy(used: Path) -> None:
    """Mark a folder as used now, and remove the least recently used ones beyond MOST."""
    try:
        if used.is_dir():
            os.utime(used)
        folders = sorted((p for p in used.parent.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        for old in folders[:-MOST]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        log.debug("%s is not tidied: %s", used.parent, error)
