"""The command line as a user has it: every command in a process of its own, in a folder of its own."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import warm

SHORT = ["recipe.epochs=1", "teacher.recipe.epochs=1", "seeds=1", "device=cpu"]


@dataclass
class Desk:
    """A working folder with a command line."""

    folder: Path

    def type(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Type a command and wait for its end."""
        return warm.type_(self.folder, *words, **variables)

    def runs(self, *words: str, **variables: str) -> str:
        """Type a command that ends well, and give what it printed."""
        done = self.type(*words, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    def refuses(self, *words: str, **variables: str) -> str:
        """Type a command that is refused: exit 2, no traceback, nothing made. Gives the message."""
        before = self.listing()
        done = self.type(*words, **variables)
        output = done.stdout + done.stderr
        assert done.returncode == 2, output
        assert "Traceback" not in output
        assert self.listing() == before
        return output

    def problems(self, *words: str, **variables: str) -> list[str]:
        """Type a command that is refused for several things, and give them apart."""
        output = self.refuses(*words, **variables)
        head, *problems = output.split("\n  - ")
        assert head == f"kdrun: {len(problems)} problems with this command:", output
        return problems

    def listing(self) -> list[str]:
        """Everything in the folder, and where its links lead."""
        return sorted(f"{p} {p.readlink() if p.is_symlink() else ''}" for p in self.folder.rglob("*"))

    def write(self, name: str, text: str = "") -> Path:
        """Put a file there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


@pytest.fixture
def desk(tmp_path):
    """An empty folder to type commands in."""
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the main job has run once, on digits."""
    desk = Desk(tmp_path_factory.mktemp("trained"))
    desk.runs("distill", *SHORT)
    return desk
