"""What an earlier kdrun wrote, as a user meets it again with this one."""

from tests.cli.conftest import desk, trained

__all__ = ["desk", "trained"]
