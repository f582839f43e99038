"""The contract that every loss keeps, kdrun's own and a user's: checked on made-up outputs of two small networks.

`kdrun losses check` prints the results for one loss; tests/losses/test_every_loss.py checks all of conf/loss.
This file is long because the whole contract is kept in one place.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdrun import memory, own
from kdrun.data.batches import Batch
from kdrun.losses import OWN, build, find
from kdrun.losses.base import Objective, Setting, Term
from kdrun.models.base import Outputs, logits_alone

STEPS = torch.arange(20, dtype=torch.float64)
ZS = (2 * STEPS.sin()).reshape(4, 5)
"""Logits of the student: 4 images, 5 classes."""
ZT = (3 * STEPS.cos()).reshape(4, 5)
"""Logits of the teacher."""
Y = torch.tensor([0, 1, 2, 3])
STEP = 1e-6
"""Step of the finite differences."""


def outputs(logits: Tensor, width: int = 3) -> Outputs:
    """Return made-up outputs of a network with two stages and these logits; the same call returns the same maps."""
    generator = torch.Generator().manual_seed(width)
    n = len(logits)
    maps = {
        "stage1": torch.randn(n, width, 8, 8, generator=generator, dtype=torch.float64).to(logits),
        "stage2": torch.randn(n, 2 * width, 4, 4, generator=generator, dtype=torch.float64).to(logits),
    }
    features = {name: x.relu() for name, x in maps.items()}
    return Outputs(logits, features, maps, features["stage2"].mean((2, 3)))


def batch(labels: Tensor, epoch: int = 0) -> Batch:
    """Return a batch of empty images with these labels."""
    n = len(labels)
    return Batch(torch.zeros(n, 1, 8, 8), labels, torch.arange(n), epoch)


def seen(given: Outputs, strong: bool) -> Outputs:
    """Return the outputs, if `strong` with outputs for a strong view: the same ones in reverse order of images."""
    return given._replace(strong=_each(given, lambda x: x.flip(0))) if strong else given


def setting(num_samples: int = 8, batch_size: int = 4) -> Setting:
    """Return the setting of a training with `num_samples` images, whose labels are 0 to 4 in turn."""
    return Setting(num_samples, batch_size, torch.arange(num_samples) % 5)


@dataclass(frozen=True)
class Subject:
    """A loss with its settings, as a YAML file has them."""

    name: str
    node: Mapping[str, Any]

    @property
    def cls(self) -> type[Term]:
        """Its class."""
        return find(self.node["use"])

    def prepared(self, student: Outputs, *teachers: Outputs, **changes: Any) -> Objective:
        """Return the loss, newly built with weight 1 and prepared, in float64 if the student's outputs are float64."""
        torch.default_generator.manual_seed(0)  # some terms draw random numbers in forward
        objective = build({self.name: {**self.node, "weight": 1.0, **changes}})
        student, *others = (seen(given, objective.needs_strong) for given in (student, *teachers))
        objective.prepare(student, others, setting(), seed=0)
        return objective.double() if student.logits.dtype == torch.float64 else objective


class Result(NamedTuple):
    """The result of one check."""

    title: str
    broken: str | None
    """Why it failed; None if it did not."""
    left_out: str | None = None
    """Why it does not apply; None if it does."""


class NotApplicable(Exception):
    """A check does not apply to a loss; the message is the reason."""


def check(subject: Subject) -> Iterator[Result]:
    """Yield the result of each check. Raise ValueError if the loss cannot be made with its settings."""
    build({subject.name: {**subject.node, "weight": 1.0}})
    for title, run in CHECKS.items():
        try:
            yield Result(title, run(subject))
        except NotApplicable as reason:
            yield Result(title, None, str(reason))
        except (Exception, SystemExit) as error:
            yield Result(title, own.words(error))


def attempt(
    objective: Objective, student: Outputs, teachers: Sequence[Outputs], images: Tensor, labels: Tensor
) -> None:
    """Run the user's own terms once on outputs of the networks that they will compare, forward and backward.

    Raise ValueError, with the term's name, if one fails, or if its value cannot be minimised by this student.
    """
    given = Batch(images, labels, torch.arange(len(images)), 0)
    if objective.needs_strong:
        given = given._replace(strong=given)
    for name, term in objective.terms.items():
        if not OWN.fits(type(term)) or not isinstance(term, Term):
            continue
        leaf = leaves(student)
        compared = [teachers[i] for i in objective.heard[name].teachers] if term.needs_teacher else []
        compared = [_bare(teacher) if term.logits_only else teacher for teacher in compared]
        try:
            with torch.random.fork_rng(devices=[]):
                if not term.needs_teacher:
                    value = term(leaf, None, given)
                elif len(compared) > 1:
                    value = term.together(leaf, compared, objective.heard[name].weights, given)
                else:
                    value = term(leaf, compared[0], given)
            if (wrong := _fault(value)) is None and not value.requires_grad:
                wrong = "its value does not depend on the student's outputs, or they are detached"
            if wrong is None:
                torch.autograd.backward(value)
        except (Exception, SystemExit) as error:
            if memory.ran_out(error):
                raise
            wrong = "it has no forward()" if isinstance(error, NotImplementedError) else own.words(error)
        if wrong is not None:
            called = f"{type(term).__module__}:{type(term).__qualname__}"
            raise ValueError(
                f"loss.{name}: {called} cannot be minimised: {wrong}; kdrun losses check {called} tries it"
            )


def refuse_formulas(objective: Objective) -> None:
    """Raise ValueError, with the term's name, if a user's own term has no valid formula."""
    for name, term in objective.terms.items():
        if OWN.fits(type(term)) and (wrong := _wrong_formula(term)):
            raise ValueError(f"loss.{name}: {wrong}")


def _bare(teacher: Outputs) -> Outputs:
    """Return the logits alone, as a cache does, and likewise for a strong view."""
    strong = None if teacher.strong is None else _bare(teacher.strong)
    return logits_alone(teacher.logits)._replace(strong=strong)


def tensors(given: Outputs) -> list[Tensor]:
    """Return all tensors of a network's outputs for one view."""
    return [given.logits, *given.features.values(), *given.preactivations.values(), given.embedding]


def leaves(given: Outputs) -> Outputs:
    """Return copies of the outputs as leaf tensors, so that each collects its gradient."""
    return _each(given, lambda x: x.detach().clone().requires_grad_())


def _each(given: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    features = {name: change(x) for name, x in given.features.items()}
    preactivations = {name: change(x) for name, x in given.preactivations.items()}
    strong = None if given.strong is None else _each(given.strong, change)
    return Outputs(change(given.logits), features, preactivations, change(given.embedding), strong)


def _pair(dtype: torch.dtype = torch.float64) -> tuple[Outputs, Outputs]:
    """Return a student's and a teacher's outputs, whose maps have different widths."""
    return outputs(ZS.to(dtype), width=3), outputs(ZT.to(dtype), width=5)


def _total(objective: Objective, student: Outputs, *teachers: Outputs, labels: Tensor = Y) -> Tensor:
    student, *others = (seen(given, objective.needs_strong) for given in (student, *teachers))
    return objective(student, others, batch(labels))[0]  # type: ignore[no-any-return]


def _one_number(subject: Subject) -> str | None:
    student, teacher = _pair(torch.float32)
    objective = subject.prepared(student, teacher)
    (term,) = objective.terms.values()
    student, teacher = (seen(given, objective.needs_strong) for given in (student, teacher))
    return _fault(term(student, teacher if subject.cls.needs_teacher else None, batch(Y)))


def _fault(value: Any) -> str | None:
    """Return why the value that a term's forward returned is not one finite number; None if it is."""
    if not isinstance(value, Tensor):
        return f"forward returns {type(value).__name__}, not a tensor"
    if value.shape != ():
        return f"forward returns a tensor of shape {tuple(value.shape)}, not a scalar; average it over the batch"
    return None if value.isfinite() else f"forward returns {value.item()}"


def _formula(subject: Subject) -> str | None:
    (term,) = subject.prepared(*_pair()).terms.values()
    return _wrong_formula(term)


def _wrong_formula(term: Any) -> str | None:
    try:
        text = term.formula()
    except NotImplementedError:
        return "it has no formula(); let it return one line with the numbers in it, such as 4²·KL(p_t ‖ p_s; T=4)"
    except (Exception, SystemExit) as error:
        return f"formula() fails: {own.words(error)}"
    if not isinstance(text, str) or not text.strip() or "\n" in text:
        return f"formula() returns {text!r}, not one line of text"
    return None


def _reaches_the_student(subject: Subject) -> str | None:
    student, teacher = map(leaves, _pair())
    total = _total(subject.prepared(student, teacher), student, teacher)
    if not total.requires_grad:
        return "its value does not depend on the student's outputs, or they are detached"
    torch.autograd.backward(total)
    moved = any(x.grad is not None and bool(x.grad.abs().max() > 0) for x in tensors(student))
    return None if moved else "the gradient at the student's outputs is 0"


def _spares_the_teacher(subject: Subject) -> str | None:
    student, teacher = map(leaves, _pair())
    torch.autograd.backward(_total(subject.prepared(student, teacher), student, teacher))
    reached = [x for x in tensors(teacher) if x.grad is not None]
    return "a gradient reaches the teacher; detach the teacher's outputs" if reached else None


def _finite_differences(subject: Subject) -> str | None:
    if subject.cls.banks:
        raise NotApplicable("each step changes the samples that it remembers")
    student, teacher = map(leaves, _pair())
    objective = subject.prepared(student, teacher)
    drawn = torch.Generator().manual_seed(0)

    def value() -> Tensor:
        torch.default_generator.manual_seed(0)
        return _total(objective, student, teacher)

    torch.autograd.backward(value())
    for x in tensors(student):
        direction = torch.randn(x.shape, generator=drawn, dtype=x.dtype)
        direction /= direction.norm()
        slope = 0.0 if x.grad is None else float((x.grad * direction).sum())
        ends = []
        with torch.no_grad():
            for step in (STEP, -2 * STEP):
                x += step * direction
                ends.append(float(value()))
            x += STEP * direction
        measured = (ends[0] - ends[1]) / (2 * STEP)
        if abs(slope - measured) > 1e-5 + 1e-3 * abs(measured):  # the tolerances of torch.autograd.gradcheck
            return (
                f"its slope is {slope:.4g} and by finite differences {measured:.4g}: part of the student's outputs is "
                "detached, or the value jumps"
            )
    return None


def _half_types(subject: Subject) -> str | None:
    for dtype in (torch.float16, torch.bfloat16):
        student, teacher = _pair(dtype)
        half = _total(subject.prepared(student, teacher), student, teacher)
        student, teacher = (_each(given, Tensor.float) for given in (student, teacher))
        full = _total(subject.prepared(student, teacher), student, teacher)
        if half.dtype != torch.float32:
            return (
                f"its value for {_called(dtype)} outputs is {_called(half.dtype)}; pass them through at_least_float32"
            )
        if not torch.equal(half, full):
            return (
                f"{half.item():.6g} for {_called(dtype)} outputs and {full.item():.6g} for the same numbers in float32"
            )
    return None


def _float64(subject: Subject) -> str | None:
    student, teacher = _pair()
    dtype = _total(subject.prepared(student, teacher), student, teacher).dtype
    return None if dtype == torch.float64 else f"its value for float64 outputs is {_called(dtype)}"


def _large_logits(subject: Subject) -> str | None:
    signs = torch.tensor([[1.0, -1, 1, -1], [-1, 1, 1, 1], [1, 1, 1, 1]])
    temperatures = [{"T": T} for T in (0.05, 1.0, 100.0)] if "T" in subject.node else [{}]
    for dtype in (torch.float32, torch.float64, torch.float16):
        for temperature in temperatures:
            zs, zt = (1e4 * signs.to(dtype)).requires_grad_(), 1e4 * signs.to(dtype).flip(1)
            student, teacher = outputs(zs, width=3), outputs(zt, width=5)
            total = _total(subject.prepared(student, teacher, **temperature), student, teacher, labels=Y[:3])
            given = ", ".join([_called(dtype), *(f"T={T:g}" for T in temperature.values())])
            if not total.isfinite():
                return f"its value is {total.item()} ({given})"
            if total.requires_grad:  # else it ignores logits; the next check covers it
                torch.autograd.backward(total)
                if zs.grad is not None and not zs.grad.isfinite().all():
                    return f"its gradient is not finite ({given})"
    return None


def _large_maps(subject: Subject) -> str | None:
    for dtype in (torch.float32, torch.float16):
        for scale in (0.0, 1e2, 1e4):
            student, teacher = (
                leaves(_each(given, lambda x, scale=scale: x * scale)._replace(logits=given.logits))  # type: ignore[misc]
                for given in _pair(dtype)
            )
            total = _total(subject.prepared(student, teacher), student, teacher)
            if not total.isfinite():
                return f"its value is {total.item()} ({_called(dtype)}, maps times {scale:g})"
            torch.autograd.backward(total)
            if not all(x.grad.isfinite().all() for x in tensors(student) if x.grad is not None):
                return f"its gradient is not finite ({_called(dtype)}, maps times {scale:g}): a root or norm of 0?"
    return None


def _no_waiting(subject: Subject) -> str | None:
    """Run the loss on meta tensors, which hold no data: reading a value raises an error."""
    student, teacher = outputs(ZS.to("meta"), width=3), outputs(ZT.to("meta"), width=5)
    objective = subject.prepared(*_pair()).to("meta")
    try:
        _total(objective, student, teacher, labels=Y.to("meta"))
    except (Exception, SystemExit) as error:
        return f"it reads a tensor's value on the host, as .item(), 'if TENSOR' and x[x > 0] do ({own.words(error)})"
    return None


def _labels(subject: Subject) -> str | None:
    student, teacher = _pair()
    value = _total(subject.prepared(student, teacher), student, teacher)
    if subject.cls.needs_labels:
        partly = _total(subject.prepared(student, teacher), student, teacher, labels=torch.tensor([0, -1, 2, -1]))
        return None if partly.isfinite() else f"its value is {partly.item()} where some images have no label (−1)"
    try:
        poisoned = torch.tensor([10**9, -(10**9), 5, -2])
        other = _total(subject.prepared(student, teacher), student, teacher, labels=poisoned)
    except (Exception, SystemExit) as error:
        return f"it reads labels: set needs_labels = True ({own.words(error)})"
    return None if torch.equal(other, value) else "it reads labels: set needs_labels = True"


def _untouched(subject: Subject) -> str | None:
    student, teacher = map(leaves, _pair())
    objective = subject.prepared(student, teacher)
    # not leaves, like a network's outputs: writing into a leaf would raise an error
    copies = {"student": _each(student, lambda x: x + 0), "teacher": _each(teacher, lambda x: x + 0)}
    before = {whose: [x.detach().clone() for x in tensors(given)] for whose, given in copies.items()}
    torch.autograd.backward(_total(objective, copies["student"], copies["teacher"]))
    for whose, given in copies.items():
        if not all(torch.equal(x, y) for x, y in zip(before[whose], tensors(given), strict=True)):
            return f"it changes what the {whose} returned, in place; let it work on a copy"
    return None


def _same_again(subject: Subject) -> str | None:
    values = []
    for _ in range(2):
        student, teacher = map(leaves, _pair(torch.float32))
        objective = subject.prepared(student, teacher)
        total = _total(objective, student, teacher)
        torch.autograd.backward(total)
        values.append([total.detach(), *(x.grad for x in tensors(student) if x.grad is not None)])
    same = len(values[0]) == len(values[1]) and all(map(torch.equal, *values))
    return None if same else "another value or gradient for the same seed; draw with torch's default generator alone"


def _all_state(subject: Subject) -> str | None:
    student, teacher = _pair(torch.float32)
    first = subject.prepared(student, teacher)
    for _ in range(2):
        total = _total(first, leaves(student), teacher)
        torch.autograd.backward(total)
        with torch.no_grad():
            for parameter in first.parameters():
                parameter.sub_(0.01 * parameter.grad if parameter.grad is not None else 0.0)
    resumed = subject.prepared(student, teacher)
    try:
        resumed.load_state_dict(first.state_dict())
    except RuntimeError:
        return (
            "it creates parameters or buffers after prepare, so a resumed training lacks them; create them in prepare"
        )
    values = []
    for objective in (first, resumed):
        torch.default_generator.manual_seed(1)
        values.append(_total(objective, student, teacher).detach())
    if torch.equal(*values):
        return None
    return "a resumed training goes on with another value: something is kept outside of parameters and buffers"


def _only_logits(subject: Subject) -> str | None:
    if not subject.cls.needs_teacher:
        raise NotApplicable("it needs no teacher")
    if not subject.cls.logits_only:
        raise NotApplicable("not set")
    student, teacher = _pair()
    bare = logits_alone(teacher.logits)
    objective = subject.prepared(student, teacher)
    try:
        same = torch.equal(
            _total(objective, student, bare), _total(subject.prepared(student, teacher), student, teacher)
        )
    except (Exception, SystemExit) as error:
        return f"it reads more than the teacher's logits: remove logits_only = True ({own.words(error)})"
    return None if same else "it reads more than the teacher's logits: remove logits_only = True"


def _several(subject: Subject) -> str | None:
    if not subject.cls.hears_several:
        raise NotApplicable("not set, so each teacher has a term of its own")
    student, first, second = leaves(outputs(ZS)), leaves(outputs(ZT, 5)), leaves(outputs(-ZT, 5))
    heard = {"teachers": [0, 1], "weights": [0.25, 0.75]}
    total = _total(subject.prepared(student, first, second, heard=heard), student, first, second)
    if total.shape != () or not total.isfinite():
        return f"together returns {total.tolist()}, not one finite number"
    torch.autograd.backward(total)
    reached = [x for x in [*tensors(first), *tensors(second)] if x.grad is not None]
    return "a gradient reaches the teachers; detach the teachers' outputs" if reached else None


def _called(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def usual_arguments(cls: type[Term]) -> dict[str, Any]:
    """Return arguments for a class that no YAML names: its defaults, and T=4 if it requires a temperature."""
    parameters = inspect.signature(cls).parameters.values()
    usual = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**usual, **({"T": 4.0} if any(p.name == "T" and p.default is p.empty for p in parameters) else {})}


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "returns one finite number": _one_number,
    "has a formula of one line": _formula,
    "sends a gradient to the student": _reaches_the_student,
    "sends no gradient to the teacher": _spares_the_teacher,
    "has the gradient of its value, by finite differences": _finite_differences,
    "computes float16 and bfloat16 in float32": _half_types,
    "keeps float64": _float64,
    "stays finite for logits of ten thousand": _large_logits,
    "stays finite for maps of zeros and of ten thousands": _large_maps,
    "never waits for the device": _no_waiting,
    "reads labels only with needs_labels, and takes images without one": _labels,
    "leaves the outputs of student and teacher as they are": _untouched,
    "returns the same for the same seed": _same_again,
    "keeps all state in parameters and buffers": _all_state,
    "reads the teacher's logits alone, with logits_only": _only_logits,
    "takes several teachers at once, with hears_several": _several,
}
"""What must hold for every loss, as a predicate of the loss. Each check returns why it fails, or None."""
