"""Similarity preserving (Tung & Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019)."""

import torch
from torch import Tensor

from kdrun.data.batches import Batch
from kdrun.losses.layers import VectorTerm, deepest
from kdrun.models.base import Outputs

__all__ = ["SP"]


def similarities(f: Tensor) -> Tensor:
    """Return the similarities of a batch's samples, G = L2row(F Fᵀ), (N, d) -> (N, N), rows of length 1.

    Section 2 of the paper. If a sample's features are all 0, its row is 0, and so is the gradient through the
    norm, which is not defined at 0.
    """
    gram = f @ f.T
    norms = torch.linalg.vector_norm(gram, dim=1, keepdim=True)
    positive = norms > 0
    return torch.where(positive, gram / torch.where(positive, norms, 1), 0)


def similarity_preserving(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Return Σ_j (G_t,ij − G_s,ij)² of each sample i, (N,), from features (N, d_s) and (N, d_t).

    The paper's loss ‖G_t − G_s‖²_F / N² is their mean, divided by N once more.
    """
    return (similarities(f_t) - similarities(f_s)).square().sum(1)


class SP(VectorTerm):
    """‖G_t − G_s‖²_F / N²: images that are similar in the teacher's features should be so in the student's.

    G holds the similarities of a batch's features with one another, so the two networks may differ in width
    and in size of map. Rows are divided by their L2 norm, as in the paper; a widely used toolbox divides by
    the L1 norm, which is another loss. The term compares the last feature maps, flattened, unless layers
    are named; if a network has no named maps, it takes the embedding.
    Raise ValueError if a network does not have a layer.
    """

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        f_s, f_t = self.vectors(student, teacher)
        return similarity_preserving(f_s, f_t).mean() / len(f_s)

    def formula(self) -> str:
        return "‖G_t − G_s‖²/N²"

    def chosen(self, layer: str | None, outputs: Outputs) -> str | None:
        return layer or deepest(outputs)
