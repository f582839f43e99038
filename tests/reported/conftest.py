from tests.cli.conftest import desk, trained

__all__ = ["desk", "trained"]
