"""DIST (Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022)."""

from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import SoftTerm, not_negative

__all__ = ["DIST"]


class DIST(SoftTerm):
    """T²·[β·(1 − ρ of rows) + γ·(1 − ρ of columns)]: correlation with the teacher in place of equality.

    The student's probabilities are to correlate with the teacher's over the classes of a sample (rows, the paper's
    L_inter) and over the samples of the batch for each class (columns, L_intra). The minimum is 0, except for a
    class whose probability is the same in the whole batch, which correlates with nothing. A column's loss
    depends on the whole batch, so there is no loss per sample. Raise ValueError if a weight is negative.
    """

    def __init__(
        self,
        T: float,
        beta: float = 1.0,
        gamma: float = 1.0,
        teacher_T: float | None = None,
        student_T: float | None = None,
        T_squared: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__(T, teacher_T, student_T, T_squared, standardize)
        not_negative(beta=beta, gamma=gamma)
        self.beta, self.gamma = float(beta), float(gamma)
        self.notation = f"[{self.beta:g}·(1 − ρ_rows) + {self.gamma:g}·(1 − ρ_columns)]({{t}}, {{s}}{{T}})"

    def compare(self, log_p_t: Tensor, log_p_s: Tensor, batch: Batch) -> Tensor:
        p_t, p_s = log_p_t.exp(), log_p_s.exp()
        inter, intra = 1 - row_pearson(p_s, p_t).mean(), 1 - row_pearson(p_s.T, p_t.T).mean()
        return self.factor * (self.beta * inter + self.gamma * intra)


def row_pearson(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation of each row, (N,), from (N, C); 0 for a row that is constant.

    As in the published code, 1e-8 is added to the product of the norms.
    """
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms: Tensor = a.norm(dim=1) * b.norm(dim=1)
    return (a * b).sum(1) / (norms + 1e-8)
