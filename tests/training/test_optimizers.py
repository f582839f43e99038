"""The optimisers without torch's compiler against torch's own."""

import subprocess
import sys

import pytest
import torch

from kdrun.training import optimizers


def trained(kind, **settings):
    """Weights and state after ten steps of changing rates, the last five by one given the first one's state."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(7, 5, generator=generator).requires_grad_(), torch.randn(5, generator=generator)]
    weights[1].requires_grad_()

    def made():
        groups = [{"params": weights[:1]}, {"params": weights[1:], "weight_decay": 0.0}]
        return kind(groups, lr=0.1, weight_decay=0.01, fused=True, **settings)

    optimizer = made()
    for step in range(10):
        if step == 5:
            state, optimizer = optimizer.state_dict(), made()
            optimizer.load_state_dict(state)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (step + 1)
        optimizer.zero_grad(set_to_none=True)
        (torch.randn(3, 7, generator=generator) @ weights[0] + weights[1]).square().sum().backward()
        optimizer.step()
    return weights, optimizer.state_dict()


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (optimizers.SGD, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (optimizers.Adam, torch.optim.Adam, {}),
        (optimizers.AdamW, torch.optim.AdamW, {"betas": (0.8, 0.99)}),
    ],
)
def test_steps_and_state_are_bit_for_bit_those_of_torch(ours, theirs, settings):
    weights, state = trained(ours, **settings)
    expected, expected_state = trained(theirs, **settings)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert repr(state) == repr(expected_state)
    assert issubclass(ours, theirs)


def test_making_and_using_one_does_not_import_torchs_compiler():
    code = (
        "import sys, torch; from kdrun.training import optimizers; w = torch.ones(3, requires_grad=True);"
        "o = optimizers.SGD([w], lr=0.1, momentum=0.9, fused=True); w.sum().backward(); o.step(); o.zero_grad();"
        "o.load_state_dict(o.state_dict()); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
