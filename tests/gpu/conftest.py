"""What only a GPU can show. `pytest -m gpu` runs these; without a CUDA device they are skipped."""

import pytest
import torch

from kdrun.training import devices


@pytest.fixture
def gpu():
    """The first GPU, its settings as they were afterwards."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    yield devices.resolve_device("cuda:0")  # as every command asks for it: with deterministic algorithms
    torch.cuda.set_sync_debug_mode("default")
