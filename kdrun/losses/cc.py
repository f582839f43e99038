"""Correlation congruence (Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019)."""

from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses.base import Setting
from kdrun.losses.layers import VectorTerm
from kdrun.models.base import Outputs

__all__ = ["CC"]


def correlation_congruence(e_s: Tensor, e_t: Tensor) -> Tensor:
    """Return mean_i Σ_d |δ_i|·|δ_i+1|, a scalar, of the differences δ = e_s − e_t, (N, d) each.

    The form of RepDistiller (Tian et al. 2020), taken from the paper's authors and used in later comparisons:
    samples i and i+1 of a batch are a random pair. The paper itself compares correlation matrices. The loss of a
    batch of one, which has no pair, is 0.
    """
    delta = (e_s - e_t).abs()
    return (delta[:-1] * delta[1:]).sum() / max(len(delta) - 1, 1)


class CC(VectorTerm):
    """mean_i Σ_d |δ_i|·|δ_i+1|: a difference from the teacher on one image must not recur on the next.

    δ is the difference of two embeddings of `feature_dim` numbers, which two Linear layers of the term compute from
    the networks' vectors, (N, d_s) and (N, d_t). Both layers are trained; the teacher itself is not.
    Raise ValueError if the dimension is below 1 or a network does not have a layer.
    """

    def __init__(
        self, feature_dim: int = 128, student_layer: str | None = None, teacher_layer: str | None = None
    ) -> None:
        super().__init__(student_layer, teacher_layer)
        if feature_dim < 1:
            raise ValueError(f"feature_dim must be a whole number of at least 1, got {feature_dim}; 128 is usual")
        self.feature_dim = feature_dim

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        f_s, f_t = self.vectors(student, teacher)
        self.embed_student = nn.Linear(f_s.shape[1], self.feature_dim)
        self.embed_teacher = nn.Linear(f_t.shape[1], self.feature_dim)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        f_s, f_t = self.vectors(student, teacher)
        return correlation_congruence(self.embed_student(f_s), self.embed_teacher(f_t))

    def formula(self) -> str:
        return f"CC(e_t, e_s; d={self.feature_dim})"
