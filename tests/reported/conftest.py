"""What users of tools like this one run into, as they meet it: a small input, the command, the right value."""

from tests.cli.conftest import desk, trained

__all__ = ["desk", "trained"]
