"""Every method in conf/loss trains: its gradient reaches what it says, its term falls, its state survives a restart."""

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from kdrun import losses
from kdrun.config import Recipe
from kdrun.data.batches import Batch
from kdrun.data.digits import digits as load_digits
from kdrun.losses.base import Setting, Term
from kdrun.models.base import Outputs
from kdrun.models.cnn import PlainCnn
from kdrun.training.cohort import Unit
from kdrun.training.learner import Learner
from tests.losses.given import CONF, NAMES, node

TESTS = Path(__file__).parents[1] / "losses"
STAGES = ["stage1", "stage2", "stage3"]
USES = {  # what each method reads of the student, by its paper's default
    "abkd": ["logits"],
    "at": STAGES,
    "ca_mkd": ["logits"],
    "cc": ["embedding"],
    "crd": ["embedding"],
    "ctkd": ["logits"],
    "dist": ["logits"],
    "dkd": ["logits"],
    "dkd_ls": ["logits"],
    "dml": ["logits"],
    "fitnet": ["stage2"],
    "js": ["logits"],
    "kd": ["logits"],
    "ls": ["logits"],
    "kl": ["logits"],
    "mlkd": ["logits"],
    "mse_logits": ["logits"],
    "mse_probs": ["logits"],
    "nkd": ["logits"],
    "ofd": STAGES,
    "pkt": ["embedding"],
    "reverse_kd": ["logits"],
    "review_kd": [*STAGES, "embedding"],
    "rkd": ["embedding"],
    "rld": ["logits"],
    "sem_ckd": STAGES,
    "soft_ce": ["logits"],
    "sp": ["stage3"],
    "ttm": ["logits"],
    "vid": STAGES,
    "wttm": ["logits"],
}
every_method = pytest.mark.parametrize("name", NAMES)
LATE = 30  # an epoch past every warm-up
TRAIN, HELD = 512, 256


def network(widths, seed, classes=10):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PlainCnn(classes, 1, (8, 8), widths, convolutions=1)


@pytest.fixture(scope="module")
def images():
    """Digits, normalised: the first to train on, the next held out."""
    whole = load_digits(name="digits", val_fraction=0, split_seed=0).train
    x = whole.images[: TRAIN + HELD].float() / 255
    return (x - x.mean()) / x.std(), whole.labels[: TRAIN + HELD]


@pytest.fixture(scope="module")
def teacher(images):
    """A larger network that has learned the digits."""
    x, y = images
    model = network([16, 32, 32], seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(120):
        rows = torch.arange(64 * step, 64 * step + 64) % TRAIN
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]).logits, y[rows]).backward()
        optimizer.step()
    model.requires_grad_(False).eval()
    assert (model(x[TRAIN:]).logits.argmax(1) == y[TRAIN:]).float().mean() > 0.9
    return model


@pytest.fixture(scope="module")
def batches(images):
    """A few epochs of training batches and one of held-out images, every one with its position in the set."""
    x, y = images
    orders = [torch.randperm(TRAIN, generator=torch.Generator().manual_seed(e)).split(64) for e in range(12)]

    def batch(rows):
        first = Batch(x[rows], y[rows], rows, LATE)
        return first._replace(strong=first._replace(images=x[rows].roll((1, 1), (2, 3)) * 0.8))

    train = [batch(rows) for order in orders for rows in order]
    return train, [batch(rows) for rows in torch.arange(TRAIN, TRAIN + HELD).split(64)]


def seen(network, batch, objective):
    """What a network answers to a batch, to its strong view too if the objective compares both."""
    first = network(batch.images)
    return first._replace(strong=network(batch.strong.images)) if objective.needs_strong else first


def made(name, teacher, images, seed=0):
    """A student and the one term, prepared; the bank of a method that has one holds the held-out images too."""
    student = network([8, 16, 24], seed)
    objective = losses.build({name: node(name)})
    x, y = images
    with torch.no_grad():
        own, taught = (network(x[:2])._replace(strong=network(x[:2])) for network in (student.eval(), teacher))
        objective.prepare(own, [taught], Setting(len(x), 64, y), seed=seed)
    return student.train(), objective.train()


def apart(outputs):
    """The same outputs as leaves, each to collect the gradient that comes to it directly."""

    def leaf(x):
        return x.detach().clone().requires_grad_()

    return Outputs(
        leaf(outputs.logits),
        {k: leaf(v) for k, v in outputs.features.items()},
        {k: leaf(v) for k, v in outputs.preactivations.items()},
        leaf(outputs.embedding),
        outputs.strong and apart(outputs.strong),
    )


@every_method
def test_gradient_reaches_what_the_method_reads_of_the_student_and_all_that_lies_before_it(
    name, teacher, images, batches
):
    student, objective = made(name, teacher, images)
    batch = batches[0][0]
    torch.manual_seed(0)
    outputs, taught = (seen(network, batch, objective) for network in (student, teacher))
    leaves = apart(outputs)
    objective(leaves, [taught], batch)[0].backward()
    given = {"logits": [leaves.logits], "embedding": [leaves.embedding]}
    given |= {stage: [leaves.features[stage], leaves.preactivations[stage]] for stage in STAGES}
    reached = [k for k, xs in given.items() if any(x.grad is not None and x.grad.abs().max() > 0 for x in xs)]
    assert sorted(reached) == sorted(USES[name])

    objective(outputs, [taught], batch)[0].backward()
    deepest = max(STAGES.index(use) if use in STAGES else len(STAGES) - 1 for use in USES[name])
    for stage in student.stages[: deepest + 1]:
        assert all(p.grad.abs().max() > 0 for p in stage.parameters() if p.ndim > 1)
    assert all(p.grad is not None for p in objective.parameters())


def trained(name, teacher, images, batches, *, helped):
    """Train a student by the labels and the term; unless `helped`, only the term's own parameters learn from it."""
    student, objective = made(name, teacher, images)
    optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=0.02, momentum=0.9)
    torch.manual_seed(0)
    for batch in batches[0]:
        outputs = seen(student, batch, objective)
        term, _ = objective(outputs if helped else apart(outputs), [seen(teacher, batch, objective)], batch)
        loss = functional.cross_entropy(outputs.logits, batch.labels) + term
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
    return student.eval(), objective


@torch.no_grad()
def on_held_out(student, objective, teacher, batches):
    """The term's mean on images that were not trained on; a bank first learns to know them."""
    torch.manual_seed(1)
    if any(term.banks for term in objective.modules() if isinstance(term, Term)):
        for batch in batches[1] * 3:
            objective(student(batch.images), [teacher(batch.images)], batch)
    objective.eval()
    values = [objective(seen(student, b, objective), [seen(teacher, b, objective)], b)[0].item() for b in batches[1]]
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def by_labels(teacher, images, batches):
    """The student that the labels alone train: the same beside every term that trains no parameters of its own."""
    return trained("kd", teacher, images, batches, helped=False)[0]


@every_method
def test_the_term_falls_on_held_out_images_below_what_its_projections_reach_alone(
    name, teacher, images, batches, by_labels
):
    """Both runs see the same batches and train the projections; in one the student's network is spared the term."""
    student, objective = trained(name, teacher, images, batches, helped=True)
    if list(objective.parameters()):
        alone = trained(name, teacher, images, batches, helped=False)
    else:
        alone = by_labels, objective
    assert on_held_out(student, objective, teacher, batches) < on_held_out(*alone, teacher, batches)


@every_method
def test_a_training_goes_on_from_its_checkpoint_bit_for_bit(name, teacher, images, batches):
    def unit():
        seeds = (0, 1) if name == "dml" else (0,)
        return Unit([learner(*made(name, teacher, images, seed), seed) for seed in seeds])

    whole, first, second = unit(), unit(), unit()
    for batch in batches[0][:6]:
        whole.step(batch, [seen(teacher, batch, whole.learners[0].objective)])
    for batch in batches[0][:3]:
        first.step(batch, [seen(teacher, batch, whole.learners[0].objective)])
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    second.restore(torch.load(buffer, weights_only=True))
    for batch in batches[0][3:6]:
        second.step(batch, [seen(teacher, batch, whole.learners[0].objective)])
    assert_same(whole.state(), second.state())


def learner(student, objective, seed):
    return Learner(
        f"student {seed}",
        student,
        objective,
        vars(Recipe(epochs=2, lr=0.01)),
        steps_per_epoch=6,
        seed=seed,
        precision="fp32",
        device=torch.device("cpu"),
    )


def assert_same(a, b, where="state"):
    """Two states hold the same values, bit for bit; seconds aside."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds"}:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, where


def test_every_method_has_its_source_its_citation_and_its_proof():
    tests = {path.stem.removeprefix("test_"): path.read_text() for path in TESTS.glob("test_*.py")}
    for name in NAMES:
        cls = losses.find(node(name)["use"])
        module = sys.modules[cls.__module__]
        assert re.search(r"\b(19|20)\d\d\b|classical", module.__doc__), f"{name}: no source in its module's docstring"
        assert cls.__doc__ and len(cls.__doc__.split()) > 15, name
        yaml = (CONF / f"{name}.yaml").read_text()
        assert re.search(r"\(.*((19|20)\d\d|no single paper).*\)", yaml.splitlines()[1]), (
            f"{name}: no citation in its YAML"
        )
        proof = cls.__name__
        assert any(proof in text for text in tests.values()), f"{name}: no test in tests/losses names {proof}"
        assert name in USES, f"{name}: say in USES what it reads of the student"
