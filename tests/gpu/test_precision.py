"""fp32 is float32 on a GPU, and tf32 is not."""

import pytest
import torch
import torch.nn.functional as F

from kdrun.training import devices

pytestmark = pytest.mark.gpu


def errors(gpu):
    """How far a matrix product and a convolution are from float64, relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator, dtype=torch.float64).to(gpu) for _ in range(2))
    x = torch.randn(16, 64, 16, 16, generator=generator, dtype=torch.float64).to(gpu)
    w = torch.randn(64, 64, 3, 3, generator=generator, dtype=torch.float64).to(gpu)
    result = []
    for call, given in ((torch.matmul, (a, b)), (F.conv2d, (x, w))):
        exact = call(*given)
        result.append(((call(*(v.float() for v in given)) - exact).abs().max() / exact.abs().max()).item())
    return result


def test_fp32_is_exact_to_float32_and_tf32_to_ten_bits(gpu):
    if torch.cuda.get_device_capability(gpu) < devices.AMPERE:
        pytest.skip("this GPU has no TF32")
    try:
        devices.set_float32("fp32")
        assert max(errors(gpu)) < 5e-5
        devices.set_float32("tf32")
        assert all(5e-5 < error < 1e-2 for error in errors(gpu))
        devices.set_float32("bf16")  # what is left in float32, the losses, is exact
        assert max(errors(gpu)) < 5e-5
    finally:
        devices.set_float32("fp32")


def test_auto_is_what_the_hardware_computes(gpu):
    resolved = devices.resolve_precision("auto", gpu)
    assert resolved == ("bf16" if torch.cuda.get_device_capability(gpu) >= devices.AMPERE else "fp32")
