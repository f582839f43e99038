"""What every loss shares: `Term`, the weighted sum of terms, and softened probabilities.

Each published loss is a file beside this one. It has a pure function with the equation, (N, C) in and (N,) out if
the method defines a loss per sample, and a `Term` that holds the settings and the state.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.models.base import Outputs


class Setting(NamedTuple):
    """What a term may know of a training before it starts."""

    num_samples: int
    """Number of images in the training set; `batch.indices` are less than this."""
    batch_size: int
    labels: Tensor
    """(num_samples,) int64 on the CPU, −1 for an image without one."""


class Term(nn.Module):
    """One published loss, a function of a student's and a teacher's outputs on one batch.

    Parameters (projections) and buffers (banks) are registered as in any module, so they are trained, saved
    and moved with the objective. A warm-up reads `batch.epoch`, a memory bank `batch.indices`.
    """

    needs_teacher: ClassVar[bool] = True
    """Whether the term compares the student with a teacher; if not, `forward` gets None for `teacher`."""
    needs_labels: ClassVar[bool] = False
    takes_two_labels: ClassVar[bool] = False
    """Whether the term handles the two labels of mixed images: it reads `partner_labels` and `share` of a batch too."""
    hears_several: ClassVar[bool] = False
    """Whether one instance takes several teachers, in `together`; otherwise each teacher has its own instance."""
    peers: ClassVar[bool] = False
    """Whether its teachers are the other students that train beside it."""
    needs_strong: ClassVar[bool] = False
    """Whether the term compares two views of each image. The outputs for the second view are the field `strong` of the
    student's and the teachers' outputs; the key `strong` of the term's YAML lists the augmentations of that view."""
    logits_only: ClassVar[bool] = False
    """Whether it reads only the logits of its teachers, so that these may come from a cache."""
    takes_top_k: ClassVar[bool] = False
    """Whether the term needs only the k largest of a teacher's probabilities and one value for all others, as most KL
    divergences and cross-entropies do (teacher.bank.top_k)."""
    banks: ClassVar[tuple[str, ...]] = ()
    """Names of the buffers that remember samples: saved in checkpoints, but not with the finished student."""

    def __init__(self) -> None:  # YAML keys are checked against this signature; Module's accepts any
        super().__init__()

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        """Create whatever depends on the outputs' shapes or on the training set; by default nothing.

        Raise ValueError, with both shapes or with the layers that exist, if the outputs cannot be compared.
        """

    def memory(self, student: Outputs, teacher: Outputs, setting: Setting) -> int:
        """Return the bytes of device memory, in float32, that the term needs besides its projections, for its banks and
        the tensors of one step; 0 for most terms. Called before `prepare`, with outputs that hold no data."""
        return 0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the unweighted loss, a scalar on the student's device, without waiting for that device.

        A term detaches the teacher's outputs, computes half-precision inputs in float32 and keeps float64.
        """
        raise NotImplementedError

    def together(self, student: Outputs, teachers: Sequence[Outputs], weights: Sequence[float], batch: Batch) -> Tensor:
        """Return the unweighted loss against several teachers, whose weights sum to 1, if `hears_several`."""
        raise NotImplementedError

    def formula(self) -> str:
        """Return the formula with its numbers, a sum in brackets, because the term's weight is written before it."""
        raise NotImplementedError

    def formula_of_views(self) -> str:
        """Return the formula if batches have a strong view; by default the same: most terms read only the weak view."""
        return self.formula()


class Heard(NamedTuple):
    """The teachers that a term compares with, by position among the learner's teachers, and their weights (sum 1)."""

    teachers: tuple[int, ...] = (0,)
    weights: tuple[float, ...] = (1.0,)


class Objective(nn.Module):
    """The weighted sum of terms that a student minimises.

    The weights need not sum to 1. A term of weight 0 is left out altogether: it is never computed, has no
    parameters and draws no random numbers, so alpha=0 is the baseline bit for bit, and alpha=1 never reads a
    label. Each term compares with the first teacher unless `heard` names others.
    Raise ValueError if a weight is negative or not finite, and if no term is left.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Term]], heard: Mapping[str, Heard] | None = None) -> None:
        super().__init__()
        not_negative(**{f"loss.{name}.weight": weight for name, (weight, _) in terms.items()})
        self.weights = {name: float(weight) for name, (weight, _) in terms.items() if weight}
        if not self.weights:
            given = ", ".join(f"{name}=0" for name in terms) or "no term at all"
            raise ValueError(f"nothing to learn from: {given}; give at least one term a weight above 0")
        self.terms = nn.ModuleDict({name: terms[name][1] for name in self.weights})
        self.heard = {name: (heard or {}).get(name, Heard()) for name in self.weights}

    @property
    def needs_teacher(self) -> bool:
        return any(term.needs_teacher for term in self._terms().values())

    @property
    def needs_labels(self) -> bool:
        return any(term.needs_labels for term in self._terms().values())

    @property
    def needs_strong(self) -> bool:
        """Whether a term compares two views of each image, so that the student learns the labels of both."""
        return any(term.needs_strong for term in self._terms().values())

    @property
    def peers(self) -> bool:
        """Whether a term's teachers are the other students that train beside this one."""
        return any(term.peers for term in self._terms().values())

    @property
    def logits_only(self) -> bool:
        """Whether no term reads more of the teachers than their logits."""
        return all(term.logits_only for term in self._terms().values() if term.needs_teacher)

    def prepare(self, student: Outputs, teachers: Sequence[Outputs], setting: Setting, seed: int | None = None) -> None:
        """Let every term make its projections and banks from sample outputs, on the device of those outputs.

        With a `seed`, initial values depend on it and on the term's name alone: neither another term nor the
        caller's generator changes them. Raise ValueError, with the term's name, if outputs cannot be compared.
        """
        for name, term in self._terms().items():
            with torch.random.fork_rng(devices=[], enabled=seed is not None):
                if seed is not None:
                    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
                    torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big"))
                try:
                    for teacher in self._teachers(name, teachers):
                        term.prepare(student, teacher, setting)
                except ValueError as error:
                    raise ValueError(f"loss.{name}: {error}") from None
        self.to(student.logits.device)

    def memory(self, student: Outputs, teachers: Sequence[Outputs], setting: Setting) -> dict[str, int]:
        """Return the bytes of device memory that each term needs besides its projections, without terms that need 0."""
        held = {
            name: sum(term.memory(student, t, setting) for t in self._teachers(name, teachers))
            for name, term in self._terms().items()
        }
        return {name: size for name, size in held.items() if size}

    def forward(self, student: Outputs, teachers: Sequence[Outputs], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, for the backward pass, and each term's unweighted value, detached."""
        values: dict[str, Tensor] = {}
        for name, term in self._terms().items():
            compared = self._teachers(name, teachers)
            if len(compared) > 1:
                values[name] = term.together(student, compared, self.heard[name].weights, batch)
            else:
                values[name] = term(student, compared[0], batch)
        weighted = [weight * values[name] for name, weight in self.weights.items()]
        total = sum(weighted[1:], start=weighted[0])
        return total, {name: value.detach() for name, value in values.items()}

    def kept(self) -> dict[str, Tensor]:
        """Return the part of the terms' state that is saved with the finished student: projections, but no banks."""
        banks = {f"terms.{name}.{bank}" for name, term in self._terms().items() for bank in term.banks}
        return {name: value for name, value in self.state_dict().items() if name not in banks}

    def formula(self) -> str:
        """Return the formula on one line, e.g. `0.1·CE(y, p_s) + 0.9·4²·KL(p_t ‖ p_s; T=4)`."""
        terms = self._terms()
        return " + ".join(
            ("" if weight == 1 else f"{weight:g}·")
            + (terms[name].formula_of_views() if self.needs_strong else terms[name].formula())
            for name, weight in self.weights.items()
        )

    def _teachers(self, name: str, teachers: Sequence[Outputs]) -> list[Any]:
        """Return the outputs of the teachers that a term compares with, or [None] if it needs no teacher."""
        return [teachers[i] for i in self.heard[name].teachers] if self._terms()[name].needs_teacher else [None]

    def _terms(self) -> dict[str, Term]:
        return {name: term for name, term in self.terms.items() if isinstance(term, Term)}


class SoftTerm(Term):
    """A term on softened probabilities, softmax(z_t / teacher_T) and softmax(z_s / student_T), each (N, C).

    `teacher_T` and `student_T` replace `T` if they are given. The gradient with respect to the student's logits
    shrinks as 1/T², so with `T_squared` the loss is multiplied by student_T² (Hinton, Vinyals & Dean 2015,
    section 2.1). With `standardize` both rows of logits become z-scores first (Sun et al. 2024, Eq. 9).
    Several teachers are averaged: the weighted mean of their softened probabilities (You et al. 2017, Eq. 2).
    Raise ValueError if a temperature is not above 0.
    """

    hears_several = True
    logits_only = True
    notation: str  # template of the formula; {t} and {s} are the two distributions, {T} the temperature

    def __init__(
        self,
        T: float,
        teacher_T: float | None = None,
        student_T: float | None = None,
        T_squared: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"T": T, "teacher_T": teacher_T, "student_T": student_T}.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, got {value}; 4 is usual, 1 is no softening")
        self.teacher_T = float(T if teacher_T is None else teacher_T)
        self.student_T = float(T if student_T is None else student_T)
        self.factor = self.student_T**2 if T_squared else 1.0
        self.standardize = standardize

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        """Return the loss of each sample, (N,), from the logarithms of both distributions, (N, C)."""
        raise NotImplementedError

    def compare(self, log_p_t: Tensor, log_p_s: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar: the mean over the samples, unless a method defines it otherwise."""
        return self.factor * self.per_sample(log_p_t, log_p_s).mean()

    def soften(self, logits: Tensor, T: float) -> Tensor:
        """Return log softmax(logits / T), (N, C), of z-scores with `standardize`."""
        return log_softened(z_scores(logits) if self.standardize else logits, T)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.together(student, [teacher], [1.0], batch)

    def together(self, student: Outputs, teachers: Sequence[Outputs], weights: Sequence[float], batch: Batch) -> Tensor:
        log_p_t = self.averaged(teachers, weights, self.teacher_T)
        return self.compare(log_p_t, self.soften(student.logits, self.student_T), batch)

    def averaged(self, teachers: Sequence[Outputs], weights: Sequence[float], T: float) -> Tensor:
        """Return the logarithm of the weighted mean of the teachers' probabilities at T, (N, C), without a gradient."""
        softened = [self.soften(teacher.logits.detach(), T) for teacher in teachers]
        if len(softened) == 1:
            return softened[0]
        weighted = [log_p + math.log(weight) for log_p, weight in zip(softened, weights, strict=True)]
        return torch.stack(weighted).logsumexp(0)

    def formula(self) -> str:
        factor = "" if self.factor == 1 else f"{self.student_T:g}²·"
        scores = "; z-scores" if self.standardize else ""
        if self.teacher_T == self.student_T:
            return factor + self.notation.format(t="p_t", s="p_s", T=f"; T={self.student_T:g}{scores}")
        t, s = f"p_t(T={self.teacher_T:g})", f"p_s(T={self.student_T:g})"
        return factor + self.notation.format(t=t, s=s, T=scores)


def not_negative(**numbers: float) -> None:
    """Raise ValueError, with the number's name, if a number is negative or not finite."""
    for name, value in numbers.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")


def z_scores(logits: Tensor) -> Tensor:
    """Return logits standardised per sample, (z − mean) / (1e-7 + std), (N, C), with the unbiased std.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, Algorithm 1.
    """
    z = at_least_float32(logits)
    return (z - z.mean(1, keepdim=True)) / (1e-7 + z.std(1, keepdim=True))


def at_least_float32(values: Tensor) -> Tensor:
    """Return half-precision values as float32, in which exp and log are precise enough, and other types unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def log_softened(logits: Tensor, T: float) -> Tensor:
    """Return log softmax(logits / T) over the classes, (N, C); finite however far apart the logits are."""
    return F.log_softmax(at_least_float32(logits) / T, dim=1)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) = Σ_j p_j (log p_j − log q_j) of each sample, (N,), from log-probabilities (N, C)."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def warm_up(epoch: int, epochs: int) -> float:
    """Return a loss's factor in an epoch: from 1/epochs in the first to 1 from the last on; 0 epochs are no warm-up.

    `epoch` counts from 0; the published codes count from 1.
    """
    return min((epoch + 1) / epochs, 1.0) if epochs else 1.0
