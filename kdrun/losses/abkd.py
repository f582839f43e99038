"""α-β divergence (Wang et al., "ABKD", ICML 2025, after Cichocki, Cruces & Amari, "Generalized Alpha-Beta Divergences
and Their Application to Robust Nonnegative Matrix Factorization", Entropy 2011)."""

import math

import torch
from torch import Tensor

from kdrun.losses.base import SoftTerm

__all__ = ["ABKD"]

NEAR = 1e-3
"""Exponents closer than this count as equal: their difference quotient would be nothing but rounding errors."""


class ABKD(SoftTerm):
    """T²·D_αβ(p_t, p_s): a family of divergences between KL(p_t ‖ p_s) and KL(p_s ‖ p_t), and beyond.

    With p the teacher's probability of a class and q the student's, dD/dq = −q^(α+β−1)·[(p/q)^α − 1]/α: α sets the
    influence of the ratio p/q, α + β that of the size of q. (1, 0) is `kd`, (0, 1) is `reverse_kd`, (1, 1) half the
    squared distance of the probabilities, (0.5, 0.5) four times the squared Hellinger distance, (0, 0) half the squared
    distance of their logarithms. The minimum is 0, where the two are equal. With a negative exponent the divergence has
    no bound and grows as p^α·q^β. Raise ValueError if a number is not finite, or if α + β is negative.
    """

    def __init__(
        self,
        T: float,
        alpha: float = 0.8,
        beta: float = 0.3,
        teacher_T: float | None = None,
        student_T: float | None = None,
        T_squared: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__(T, teacher_T, student_T, T_squared, standardize)
        for name, value in {"alpha": alpha, "beta": beta}.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"{name} must be a finite number, got {value}; 0.8 and 0.3 are published for CIFAR-100"
                )
        if alpha + beta < 0:
            raise ValueError(
                f"alpha + beta must be at least 0, got {alpha:g} + {beta:g}; with less, the classes that both networks "
                "rule out would decide the loss"
            )
        self.alpha, self.beta = float(alpha), float(beta)
        self.notation = f"D_αβ({{t}}, {{s}}; α={self.alpha:g}, β={self.beta:g}{{T}})"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return alpha_beta(log_p_t, log_p_s, self.alpha, self.beta)


def alpha_beta(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """Return Σ_j [p^(α+β)/(β(α+β)) + q^(α+β)/(α(α+β)) − p^α q^β/(αβ)] of each sample, (N,), or its limit.

    From log-probabilities (N, C). As α, β or α + β goes to 0, the three summands grow without bounds, but cancel. With
    r = log(p/q) their sum for a class is q^(α+β)·r²·exp[0, αr, (α+β)r], where exp[…] is the second divided difference
    of the exponential at these points, and also p^(α+β)·r²·exp[0, −βr, −(α+β)r]. Both forms exist at all α and β; for
    each class the one is taken whose exponentials do not exceed 1 if the exponents are positive. The limits are those
    of Cichocki et al.; in the authors' code the limits at α = 0, β = 0 and α + β = 0 lack a factor of 1/β or 1/α,
    which is 1 for both KLs.
    """
    r, s = log_p - log_q, alpha + beta
    above, below = r.clamp(min=0), (-r).clamp(min=0)  # one of them is 0, and so is its part
    by_p = (s * log_p).exp() * second_difference(above, (0.0, beta, s))
    by_q = (s * log_q).exp() * second_difference(below, (0.0, alpha, s))
    return (by_p + by_q).sum(dim=1)


def second_difference(x: Tensor, rates: tuple[float, float, float]) -> Tensor:
    """Return x²·exp[−ax, −bx, −cx], the second divided difference of the exponential, for x of at least 0.

    It is symmetric in the rates a, b and c, 0 at x = 0, and e^(−ax)·x²/2 where they are equal.
    """
    a, b, c = sorted(rates)
    if c - a < NEAR:
        return 0.5 * x.square() * (-(a + b + c) / 3 * x).exp()
    first, second = (-a * x).exp() * mean_exp((a - b) * x), (-b * x).exp() * mean_exp((b - c) * x)
    return x * (first - second) / (c - a)


def mean_exp(x: Tensor) -> Tensor:
    """Return (e^x − 1)/x, the mean of the exponential between 0 and x, whose gradient exists at 0 as well."""
    near = x.abs() < 1e-2
    apart = torch.where(near, 1.0, x)
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6))))
    return torch.where(near, series, torch.expm1(apart) / apart)
