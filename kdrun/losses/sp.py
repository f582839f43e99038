"""Similarity preserving (Tung & Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdrun.losses.layers import VectorTerm, deepest

if TYPE_CHECKING:
    from kdrun.data.batches import Batch
    from kdrun.models.base import Outputs

__all__ = ["SP"]


def similarities(f: Tensor) -> Tensor:
    """How alike the samples of a batch are: G = L2row(F Fᵀ), (N, d) -> (N, N), rows of length 1.

    Section 2 of the paper. A sample whose features are all 0 is like no other: its row is 0, and so is the
    gradient through the norm, which has no direction there.
    """
    gram = f @ f.T
    norms = torch.linalg.vector_norm(gram, dim=1, keepdim=True)
    some = norms > 0
    return torch.where(some, gram / torch.where(some, norms, 1), 0)


def similarity_preserving(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Σ_j (G_t,ij − G_s,ij)² of each sample i, (N,), from features (N, d_s) and (N, d_t).

    The paper's loss ‖G_t − G_s‖²_F / N² is their mean, divided by N once more.
    """
    return (similarities(f_t) - similarities(f_s)).square().sum(1)


class SP(VectorTerm):
    """‖G_t − G_s‖²_F / N²: images that the teacher finds alike shall be alike to the student.

    G holds the similarities of a batch's features with one another, so the two networks may differ in width
    and in size of map. Rows are divided by their L2 norm, as in the paper; a widely used toolbox divides by
    the L1 norm, which makes another loss of it. Compared are the last feature maps, flattened, or the layers
    that are named; of a network that names no maps, the embedding.
    Raises ValueError for a layer that a network does not have.
    """

    def forward(self, student: "Outputs", teacher: "Outputs", batch: "Batch") -> Tensor:
        f_s, f_t = self.vectors(student, teacher)
        return similarity_preserving(f_s, f_t).mean() / len(f_s)

    def formula(self) -> str:
        return "‖G_t − G_s‖²/N²"

    def chosen(self, layer: str | None, outputs: "Outputs") -> str | None:
        return layer or deepest(outputs)
