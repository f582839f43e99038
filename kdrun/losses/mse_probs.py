"""Mean squared error between softened probabilities: a classical alternative to KL, without a paper of its own."""

from torch import Tensor

from kdrun.losses.base import SoftTerm

__all__ = ["ProbabilityMSE"]


class ProbabilityMSE(SoftTerm):
    """T²·mean (p_s − p_t)²: the squared difference of the probabilities, averaged over samples and classes.

    Its gradient, like that of KL, shrinks as 1/T² (1/T from p_s − p_t, 1/T from the softmax), hence the same
    factor.
    """

    notation = "MSE({t}, {s}{T})"

    def per_sample(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        return (log_p_s.exp() - log_p_t.exp()).square().mean(dim=1)
