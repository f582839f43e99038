"""Relational knowledge distillation (Park, Kim, Lu & Cho, "Relational Knowledge Distillation", CVPR 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.base import not_negative
from kdrun.losses.layers import VectorTerm
from kdrun.models.base import Outputs

__all__ = ["RKD"]


def distance_loss(e_s: Tensor, e_t: Tensor) -> Tensor:
    """Return the Huber loss of the relative distances ψ_D of all pairs, Eq. 5 to 8, from (N, d_s) and (N, d_t).

    A mean over the N² pairs, as in the published code; the paper writes a sum.
    """
    return F.smooth_l1_loss(relative_distances(e_s), relative_distances(e_t))


def angle_loss(e_s: Tensor, e_t: Tensor) -> Tensor:
    """Return the Huber loss of the angles ψ_A of all triplets, Eq. 9 and 10, from (N, d_s) and (N, d_t).

    A mean over all N³ triplets, including those with a sample twice, as in the published code.
    """
    return F.smooth_l1_loss(angles(e_s), angles(e_t))


def relative_distances(e: Tensor) -> Tensor:
    """Return ψ_D(i, j) = ‖e_i − e_j‖ / μ, where μ is the mean of the distances above 0, (N, d) -> (N, N).

    All 0 if no two samples differ. The mean is computed from sums, because a selection of unknown size would
    wait for the device. Distances are computed from differences; the published code computes them from inner products,
    where small distances are lost in rounding errors and equal samples are 1e-6 apart.
    """
    distances = torch.linalg.vector_norm(e[None] - e[:, None], dim=2)  # at 0 its gradient is 0
    count = (distances > 0).sum()
    mean = distances.sum() / count.clamp(min=1)
    relative: Tensor = distances / torch.where(count > 0, mean, 1)
    return relative


def angles(e: Tensor) -> Tensor:
    """Return ψ_A, the cosine of the angle at sample i between samples j and k, (N, d) -> (N, N, N).

    0 if e_i equals e_j or e_k: then there is no direction, and no gradient either. (The published code divides by at
    least 1e-12, which multiplies the gradient by 1e12 if a student gives two images the same vector.)
    """
    differences = e[None] - e[:, None]
    distances = torch.linalg.vector_norm(differences, dim=2, keepdim=True)
    apart = distances > 0
    directions = torch.where(apart, differences / torch.where(apart, distances, 1), 0)
    return directions @ directions.transpose(1, 2)


class RKD(VectorTerm):
    """λ_D·distance + λ_A·angle: a batch's distances and angles are to be the teacher's, at any scale and width.

    The term compares the embeddings, (N, d_s) and (N, d_t), or the layers that are named.
    Raise ValueError if a weight is negative or both are 0, and if a network does not have a layer.
    """

    def __init__(
        self,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        student_layer: str | None = None,
        teacher_layer: str | None = None,
    ) -> None:
        super().__init__(student_layer, teacher_layer)
        not_negative(distance_weight=distance_weight, angle_weight=angle_weight)
        if not distance_weight + angle_weight:
            raise ValueError("distance_weight and angle_weight are both 0; give one of them a weight above 0")
        self.distance_weight, self.angle_weight = float(distance_weight), float(angle_weight)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        e_s, e_t = self.vectors(student, teacher)
        parts = [
            weight * loss(e_s, e_t)
            for weight, loss in ((self.distance_weight, distance_loss), (self.angle_weight, angle_loss))
            if weight
        ]
        return torch.stack(parts).sum()

    def formula(self) -> str:
        weighted = {"RKD-D": self.distance_weight, "RKD-A": self.angle_weight}
        return "(" + " + ".join(f"{weight:g}·{name}(e_t, e_s)" for name, weight in weighted.items() if weight) + ")"
