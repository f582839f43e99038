"""Regression on logits (Ba & Caruana 2014, equation 1; Kim et al., "Comparing KL and MSE", IJCAI 2021)."""

from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import Term, at_least_float32
from kdrun.models.base import Outputs

__all__ = ["LogitMSE"]


class LogitMSE(Term):
    """mean (z_s − z_t)²: the squared difference of the logits (N, C), averaged over samples and classes.

    It has no temperature: for logits of mean 0 it is, up to a constant, the limit of T²·KL as T grows (Hinton,
    Vinyals & Dean 2015, section 2.1).
    """

    logits_only = True

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        difference = at_least_float32(student.logits) - at_least_float32(teacher.logits.detach())
        return difference.square().mean()

    def formula(self) -> str:
        return "MSE(z_t, z_s)"
