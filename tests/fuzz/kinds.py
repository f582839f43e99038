"""A kind of input: sound files, how kdrun reads them, and which errors its reader documents."""

import contextlib
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.files import RunFailed
from tests.fuzz import judge, mutators

REFUSED = (ValueError, RunFailed)  # the errors of bad input, of which a command prints the text and exits with 2 or 3
CHECKSUMMED = (
    "store", "checkpoint", "weights of torch", "result.json", "run.json", "sweep.json", "comparison.json",
    "cache of images",
)  # fmt: skip
"""The kinds whose content has a checksum, so that a change of it must be noticed."""


@dataclass
class Kind:
    """A kind of input: its files, those of them that are damaged, and how they are read."""

    name: str
    read: Callable[[Path], Any]
    files: dict[str, bytes]
    targets: list[str]
    refusals: tuple[type[BaseException], ...] = REFUSED
    foreign: list[bytes] = field(default_factory=list)  # other files that may lie there instead
    mutate: Callable[..., bytes] = mutators.damaged
    limit: float = judge.LIMIT  # seconds of computing that an answer may take
    also: list[Any] = field(default_factory=list)  # values that are right besides that of the sound files
    _right: list[Any] | None = None

    @property
    def sealed(self) -> bool:
        """Whether a change of the content must be noticed."""
        return self.name in CHECKSUMMED

    def right(self, folder: Path) -> list[Any]:
        """Return the values of sound files."""
        if self._right is None:
            judge.lay(folder, self.files)
            with contextlib.chdir(folder):
                self._right = [self.read(folder), *self.also]
        return self._right

    def input(self, rng: random.Random) -> dict[str, bytes]:
        """Return the files with one of them damaged, rarely two."""
        targets = {rng.choice(self.targets) for _ in range(rng.choice((1, 1, 1, 1, 2)))}
        return self.files | {name: self.mutate(self.files[name], rng, self.foreign) for name in sorted(targets)}


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="kdrun-fuzz-") as folder:
        yield Path(folder)
