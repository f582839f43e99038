"""The learner's step against plain torch loops."""

import copy

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import nn
from torch.nn import functional

from kdrun import losses, models
from kdrun.config import Recipe
from kdrun.data.batches import Batch
from kdrun.training.cohort import Unit
from kdrun.training.learner import Diverged, Learner
from kdrun.training.measure import Measured, measure
from tests.training.conftest import CE, KD

CPU = torch.device("cpu")
STEPS = 4


def network(dropout=0.0):
    return models.build(
        "cnn.PlainCnn", num_classes=3, in_channels=1, image_size=(8, 8), mean=[0.0], std=[1.0], seed=1,
        widths=[4], convolutions=1, dropout=dropout,
    )  # fmt: skip


def learner(model=None, objective=None, seed=0, precision="fp32", **recipe):
    settings = vars(Recipe(**{"epochs": 3, "lr": 0.05, "schedule": "constant", **recipe}))
    made = losses.build(objective or {"ce": CE})
    return Learner(
        "it", model or network(), made, settings, steps_per_epoch=STEPS, seed=seed, precision=precision, device=CPU
    )


@pytest.fixture
def batches():
    draws = torch.Generator().manual_seed(0)
    images = [torch.randn(6, 1, 8, 8, generator=draws) for _ in range(STEPS)]
    labels = [torch.randint(3, (6,), generator=draws) for _ in range(STEPS)]
    return [Batch(x, y, torch.arange(6), 0) for x, y in zip(images, labels, strict=True)]


def theirs(model, optimizer, batches, clip=None, smoothing=0.0):
    """Train with nothing but torch, and give the weights after every step."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last).train()
    made = optimizer(list(model.parameters()))
    seen = []
    for batch in batches:
        made.zero_grad()
        functional.cross_entropy(model(batch.images).logits, batch.labels, label_smoothing=smoothing).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        made.step()
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
    return seen


def assert_same_steps(ours, batches, expected):
    for batch, weights in zip(batches, expected, strict=True):
        Unit([ours]).step(batch, [])
        torch.testing.assert_close(dict(ours.model.state_dict()), weights, rtol=1e-5, atol=1e-6)


OPTIMIZERS = {
    "sgd": (
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    "sgd without momentum": (
        {"optimizer": "sgd", "momentum": 0.0, "nesterov": False},
        lambda p: torch.optim.SGD(p, 0.05),
    ),
    "adam": (
        {"optimizer": "adam", "betas": [0.8, 0.95], "weight_decay": 0.01},
        lambda p: torch.optim.Adam(p, 0.05, betas=(0.8, 0.95), weight_decay=0.01),
    ),
    "adamw": (
        {"optimizer": "adamw", "weight_decay": 0.1},
        lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_is_that_of_a_plain_torch_loop(batches, name):
    recipe, optimizer = OPTIMIZERS[name]
    model = network()
    assert_same_steps(learner(copy.deepcopy(model), **recipe), batches, theirs(model, optimizer, batches))


def test_norms_and_biases_are_exempt_from_weight_decay_when_asked(batches):
    model = network()

    def grouped(parameters):
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        assert matrices and vectors
        return torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.5}, {"params": vectors, "weight_decay": 0.0}], 0.05
        )

    ours = learner(copy.deepcopy(model), optimizer="adamw", weight_decay=0.5, decay_norm_and_bias=False)
    assert_same_steps(ours, batches, theirs(model, grouped, batches))
    names = {id(p): n for n, p in ours.model.named_parameters()}
    exempt = {names[id(p)] for g in ours.optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    assert exempt == {n for n in names.values() if n.endswith("bias")} | {
        f"{n}.weight" for n, m in ours.model.named_modules() if isinstance(m, nn.BatchNorm2d)
    }


def test_gradients_are_clipped_to_their_norm(batches):
    model = network()
    recipe = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False}
    expected = theirs(model, lambda p: torch.optim.SGD(p, 0.05), batches, clip=0.01)
    assert_same_steps(learner(copy.deepcopy(model), clip_norm=0.01, **recipe), batches, expected)
    (free, *_), (clipped, *_) = theirs(model, lambda p: torch.optim.SGD(p, 0.05), batches), expected
    start = model.state_dict()
    moved = [sum((w[n] - start[n]).square().sum() for n, _ in model.named_parameters()).sqrt() for w in (free, clipped)]
    assert moved[1] == pytest.approx(0.05 * 0.01, rel=1e-3) and moved[0] > 2 * moved[1]


def test_labels_are_smoothed_as_torch_smooths_them(batches):
    model = network()
    expected = theirs(model, lambda p: torch.optim.Adam(p, 0.05), batches, smoothing=0.2)
    ours = learner(copy.deepcopy(model), {"ce": {**CE, "label_smoothing": 0.2}}, optimizer="adam")
    assert_same_steps(ours, batches, expected)


def test_the_average_is_that_of_the_weights_and_buffers_after_every_step(batches):
    ours = learner(ema_decay=0.25)
    average = {k: v.double() for k, v in ours.model.state_dict().items() if v.is_floating_point()}
    decays = []
    for t, batch in enumerate(batches):
        Unit([ours]).step(batch, [])
        decays.append(min(0.25, (1 + t) / (10 + t)))
        now = {k: v.double() for k, v in ours.model.state_dict().items() if v.is_floating_point()}
        average = {k: decays[-1] * average[k] + (1 - decays[-1]) * v for k, v in now.items()}
    assert decays[:4] == pytest.approx([1 / 10, 2 / 11, 3 / 12, 0.25])  # both sides of the minimum
    kept = {k: v.double() for k, v in ours.evaluated.state_dict().items() if v.is_floating_point()}
    torch.testing.assert_close(kept, average, rtol=1e-5, atol=1e-6)
    assert ours.evaluated is not ours.model


def test_selection_is_on_the_mean_over_classes_where_that_was_asked_for():
    rare_right = torch.tensor([[2.0, 1.0]] * 6 + [[1.0, 2.0]] * 4)  # 8 of 10 right: class 0 in 6 of 8, class 1 in both
    all_one = torch.tensor([[2.0, 1.0]] * 10)  # as many right, none of them of class 1
    labels = torch.tensor([0] * 8 + [1] * 2)
    measured = [Measured(0.8, 1.0, rare_right, labels), Measured(0.8, 0.5, all_one, labels)]
    assert [m.balanced for m in measured] == [balanced_accuracy_score(labels, m.logits.argmax(1)) for m in measured]
    for select, epoch in (("balanced", 1), ("accuracy", 2)):  # accuracy is equal: the lower loss decides
        ours = learner(select=select)
        for one in measured:
            ours.end_epoch(one, None, 10, 0.0)
        assert ours.progress.best_epoch == epoch
        assert ("val_balanced_accuracy" in ours.progress.history[0]) is (select == "balanced")


def test_the_learning_rate_follows_the_schedule(batches):
    ours = learner(schedule="cosine", optimizer="sgd")
    seen = []
    for batch in batches:
        Unit([ours]).step(batch, [])
        seen.append(ours.optimizer.param_groups[0]["lr"])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * STEPS)
    for value in seen:
        assert value == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torchs_own_generator_is_left_as_it_was_and_has_no_influence(batches, precision):
    def weights(seed):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        ours = learner(network(dropout=0.5), seed=3, precision=precision)
        for batch in batches:
            Unit([ours]).step(batch, [])
        assert torch.equal(torch.get_rng_state(), before)
        return ours.model.state_dict()

    a, b = weights(1), weights(2)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_seed_decides_the_dropout(batches):
    def weights(seed):
        ours = learner(network(dropout=0.5), seed=seed)
        Unit([ours]).step(batches[0], [])
        return torch.cat([v.flatten().float() for v in ours.model.state_dict().values()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_bf16_trains_float32_weights_with_nearby_results(batches):
    exact, rounded = learner(), learner(precision="bf16")
    for batch in batches:
        Unit([exact]).step(batch, [])
        Unit([rounded]).step(batch, [])
    assert {p.dtype for p in rounded.model.parameters()} == {torch.float32}
    torch.testing.assert_close(rounded.losses, exact.losses, rtol=0.05, atol=0.05)
    assert not torch.equal(rounded.losses, exact.losses)


def test_a_learner_goes_on_from_its_state_in_mid_epoch_bit_for_bit(batches):
    def fresh():
        return learner(network(dropout=0.5), optimizer="adam", ema_decay=0.9, clip_norm=1.0, schedule="onecycle")

    whole, first, second = fresh(), fresh(), fresh()
    for batch in batches:
        Unit([whole]).step(batch, [])
    for batch in batches[:2]:
        Unit([first]).step(batch, [])
    second.restore(copy.deepcopy(first.state()))
    for batch in batches[2:]:
        Unit([second]).step(batch, [])
    row = whole.end_epoch(None, None, 24, 0.0)
    assert {**row, "seconds": 0, "images_per_second": 0} == {
        **second.end_epoch(None, None, 24, 0.0), "seconds": 0, "images_per_second": 0
    }  # fmt: skip
    a, b = whole.evaluated.state_dict(), second.evaluated.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_row_of_an_epoch_holds_the_means_of_its_steps(batches):
    ours = learner(objective={"ce": {**CE, "weight": 0.1}, "kd": KD})
    teacher = network().eval()
    seen = []
    for batch in batches:
        with torch.no_grad():
            outputs = teacher(batch.images)
        Unit([ours]).step(batch, [outputs])
        seen.append(ours.losses[len(seen)].tolist())
    row = ours.end_epoch(None, None, 24, 1.0)
    total, ce, kd = torch.tensor(seen).mean(0).tolist()
    assert row["loss"] == pytest.approx(total) == pytest.approx(0.1 * ce + 0.9 * kd)
    assert (row["loss.ce"], row["loss.kd"]) == (pytest.approx(ce), pytest.approx(kd))
    assert row["epoch"] == 1 and row["images_per_second"] == pytest.approx(24 / row["seconds"], abs=0.1)


def test_a_broken_loss_is_named_with_epoch_batch_term_temperature_and_rate(batches):
    ours = learner(objective={"ce": {**CE, "weight": 0.1}, "kd": KD}, schedule="cosine")
    teacher = network().eval()
    for number, batch in enumerate(batches):
        with torch.no_grad():
            outputs = teacher(batch.images)
        if number == 2:
            outputs = outputs._replace(logits=outputs.logits * float("nan"))
            lr = ours.lr(ours.progress.batch)
        Unit([ours]).step(batch, [outputs])
    with pytest.raises(
        Diverged, match=r"it: epoch 1, batch 3: kd is nan \(loss 0\.1·ce \+ 0\.9·kd, lr .*kd: T=4"
    ) as error:
        ours.end_epoch(None, None, 24, 0.0)
    assert f"lr {lr:.3g}" in str(error.value)
    assert ours.best is None and not ours.progress.history


def measured(accuracy, nll=1.0):
    return Measured(accuracy, nll, torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))


def test_small_steps_that_add_up_to_min_delta_are_an_improvement():
    ours = learner(patience=3, min_delta=0.05, epochs=100)
    for accuracy in (0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62):  # two steps together exceed 0.05
        ours.end_epoch(measured(accuracy), None, 24, 0.0)
    assert not ours.progress.stopped
    for _ in range(3):
        ours.end_epoch(measured(0.62), None, 24, 0.0)
    assert ours.progress.stopped and ours.progress.best_epoch == 7


def test_equal_accuracy_is_decided_by_the_lower_loss():
    ours = learner(epochs=100)
    for nll in (1.0, 0.8, 0.9):
        ours.end_epoch(measured(0.5, nll), None, 24, 0.0)
    assert ours.progress.best_epoch == 2


def test_measuring_leaves_the_networks_mode_as_it_was(batches):
    ours = learner(network(dropout=0.5))
    result = measure(ours.evaluated, batches, "fp32", CPU)
    assert ours.model.training
    with torch.no_grad():
        logits = torch.cat([copy.deepcopy(ours.model).eval()(b.images).logits for b in batches])
    labels = torch.cat([b.labels for b in batches])
    torch.testing.assert_close(result.logits, logits)
    assert result.accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert result.nll == pytest.approx(functional.cross_entropy(logits, labels).item())
