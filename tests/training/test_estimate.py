"""The estimated memory against what torch really keeps."""

import pytest
import torch

from kdrun.config import Recipe
from kdrun.spec import Spec
from kdrun.training.estimate import memory
from kdrun.training.networks import build_model


def spec(**recipe):
    return Spec(
        data={"mean": [0.5], "std": [0.2]},
        model={
            "use": "cnn.PlainCnn", "arguments": {"widths": [8, 16], "convolutions": 2, "dropout": 0.1},
            "num_classes": 10, "in_channels": 1, "image_size": [16, 16], "digest": None,
        },
        objective={},
        recipe=vars(Recipe(batch_size=32, **recipe)),
        seed=0,
        precision="fp32",
    )  # fmt: skip


def saved_for_backward(model, images):
    """The bytes that autograd keeps, each storage once, without the weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        held = model(images)  # alive, so that no storage is used twice
        assert held.logits.requires_grad
    return sum(size for place, size in storages.items() if place not in weights)


@pytest.mark.parametrize(("optimizer", "copies"), [("sgd", 1), ("adam", 2)])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_estimate_is_weights_gradients_states_and_saved_activations(optimizer, copies, ema):
    described = spec(optimizer=optimizer, ema_decay=ema)
    model = build_model(described, seed=0)
    weights = sum(p.numel() * 4 for p in model.parameters())
    real = saved_for_backward(model.train(), torch.randn(32, 1, 16, 16))
    expected = weights * (3 + copies + (1 if ema else 0)) + real
    assert memory(model, described) == pytest.approx(expected, rel=0.1)


def test_activations_grow_with_the_batch():
    small, large = spec(optimizer="sgd"), spec(optimizer="sgd")
    large.recipe["batch_size"] = 64
    model = build_model(small, seed=0)
    weights = 4 * sum(p.numel() * 4 for p in model.parameters())
    ratio = (memory(model, large) - weights) / (memory(model, small) - weights)
    assert ratio == pytest.approx(2, rel=0.02)
