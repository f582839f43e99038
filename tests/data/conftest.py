"""Every test of data keeps its decoded copies to itself."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDRUN_CACHE", str(tmp_path / "decoded"))
    return tmp_path / "decoded"
