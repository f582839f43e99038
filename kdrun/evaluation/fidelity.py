"""How closely a student follows its teacher; fidelity is not accuracy (Stanton et al., NeurIPS 2021)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdrun.evaluation.accuracy import NO_ANSWER, answers


def agreement(student: NDArray[np.floating], teacher: NDArray[np.floating]) -> float:
    """Return the share of samples for which both predict the same class, right or wrong: two (N, C) -> [0, 1].

    A sample with NaN logits has no prediction, so nothing agrees with it. Raise ValueError if the shapes differ.
    """
    _same_shape(student, teacher)
    chosen = answers(student)
    return float(((chosen == answers(teacher)) & (chosen != NO_ANSWER)).mean())


def divergence(student: NDArray[np.floating], teacher: NDArray[np.floating]) -> float:
    """Return the mean KL(p_t ‖ p_s) at T=1 in nats: two (N, C) of logits -> a number of at least 0.

    Computed from log-probabilities in float64. Raise ValueError if the shapes differ.
    """
    from scipy.special import log_softmax

    _same_shape(student, teacher)
    log_s = log_softmax(student.astype(np.float64), axis=1)
    log_t = log_softmax(teacher.astype(np.float64), axis=1)
    return float((np.exp(log_t) * (log_t - log_s)).sum(axis=1).mean())


def _same_shape(student: NDArray[np.floating], teacher: NDArray[np.floating]) -> None:
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(
            f"student logits {student.shape} and teacher logits {teacher.shape} are not of the same samples and "
            "classes (N, C)"
        )
