"""Semantic calibration (Chen et al., "Cross-Layer Distillation with Semantic Calibration", AAAI 2021)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdrun.data.batches import Batch
from kdrun.losses import layers
from kdrun.losses.base import Setting, at_least_float32
from kdrun.models.base import Outputs

__all__ = ["SemCKD"]


def similarity(f: Tensor) -> Tensor:
    """Return the inner products of all pairs of samples, (N, N), from their maps, (N, c, h, w), flattened.

    The matrices A of the paper's section "Semantic Calibration", where they are not normalised either.
    """
    rows = f.flatten(1)
    return rows @ rows.T


def association(queries: Tensor, keys: Tensor) -> Tensor:
    """Return α, how much each student layer of a sample learns from each teacher layer, (N, S, T); sums over T are 1.

    Softmax of the products of unit queries, (N, S, d), and unit keys, (N, T, d).
    """
    return (F.normalize(queries, dim=2) @ F.normalize(keys, dim=2).transpose(1, 2)).softmax(2)


def calibrated(distances: Tensor, weights: Tensor) -> Tensor:
    """Return Σ_s Σ_t α_st·d_st / S of each sample, (N,), from (N, S, T) twice.

    The paper's loss L_SemCKD; the mean over the S student layers follows the authors' code, and the published weight
    of 400 belongs to it.
    """
    return (weights * distances).sum((1, 2)) / distances.shape[1]


class SemCKD(layers.MapTerm):
    """Σ_s Σ_t α_st·MSE(r_st(f_s), f_t) / S: every stage of the student learns from every stage of the teacher.

    α weights the pairs of stages for each sample: it compares a query of the student's stage with a key of the
    teacher's, which small networks compute from the sample's similarities to its batch. Maps of different sizes
    are compared at the smaller size. The numbers of stages may differ; without names each side's deepest stages are
    taken, at most four. The authors add KD with weight 1 (loss.kd.weight=1).

    Those networks read `batch_size` similarities, as published. A smaller batch is padded with zeros; in a larger
    one (if a single last image joins the batch before) only similarities to the first `batch_size` images are read.
    Raise ValueError if a number is out of range and, in `prepare`, if a layer does not exist.
    """

    def __init__(
        self,
        widening: float = 2.0,
        reduction: float = 4.0,
        student_layers: Sequence[str] | None = None,
        teacher_layers: Sequence[str] | None = None,
    ) -> None:
        super().__init__(student_layers, teacher_layers)
        for name, value in {"widening": widening, "reduction": reduction}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        self.widening, self.reduction = widening, reduction
        self.stages: dict[str, list[str]] = {}
        self.batch_size = 0
        self.queries, self.keys, self.projections = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        layers.pairs(student, teacher)  # raises an error if a network has no maps
        sides = zip(("student", "teacher"), (student, teacher), self.named, strict=True)
        self.stages = {side: _chosen(side, outputs, names) for side, outputs, names in sides}
        self.batch_size = setting.batch_size
        width = max(1, int(self.batch_size / self.reduction))
        self.queries = nn.ModuleList(_embedding(self.batch_size, width) for _ in self.stages["student"])
        self.keys = nn.ModuleList(_embedding(self.batch_size, width) for _ in self.stages["teacher"])
        self.projections = nn.ModuleList(
            projection(f_s.shape[1], f_t.shape[1], self.widening)
            for f_s in self._maps("student", student)
            for f_t in self._maps("teacher", teacher)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        maps_s = self._maps("student", student)
        maps_t = [f_t.detach() for f_t in self._maps("teacher", teacher)]
        queries, keys = self._embedded(self.queries, maps_s), self._embedded(self.keys, maps_t)
        every = [(f_s, f_t) for f_s in maps_s for f_t in maps_t]
        distances = [
            _distance(project, *layers.alike(f_s, f_t))
            for project, (f_s, f_t) in zip(self.projections, every, strict=True)
        ]
        table = torch.stack(distances, 1).view(-1, len(maps_s), len(maps_t))
        return calibrated(table, association(queries, keys)).mean()

    def formula(self) -> str:
        return "[Σ_s Σ_t α_st·MSE(r_st(f_s), f_t) / S]"

    def _maps(self, side: str, outputs: Outputs) -> list[Tensor]:
        return [at_least_float32(outputs.features[name]) for name in self.stages[side]]

    def _embedded(self, networks: nn.ModuleList, maps: list[Tensor]) -> Tensor:
        """Return a query or key of every sample and layer, (N, layers, d)."""
        similar = [F.pad(similarity(f), (0, self.batch_size - len(f))) for f in maps]  # negative padding crops
        return torch.stack([embed(rows) for embed, rows in zip(networks, similar, strict=True)], 1)


def projection(from_: int, to: int, widening: float) -> nn.Sequential:
    """Return 1×1, 3×3 and 1×1 convolutions from a student's stage to a teacher's, wider inside than the teacher's."""
    width = max(1, int(widening * to))
    return nn.Sequential(
        nn.Conv2d(from_, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, to, 1, bias=False),
    )


def _embedding(from_: int, to: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(from_, 2 * to), nn.ReLU(), nn.Linear(2 * to, to))


def _chosen(side: str, outputs: Outputs, names: Sequence[str] | None) -> list[str]:
    """Return the layers of one side: those named, or its stages, at most the four deepest."""
    features = outputs.features
    if names is None:
        names = ([name for name in features if name != "stem"] or list(features))[-layers.MOST :]
    if not names:
        raise ValueError(f"{side}_layers=[]: name at least one of {', '.join(features)}")
    for name in names:
        layers.check_known(side, name, features)
        layers.check_map(side, name, features[name])
    return list(names)


def _distance(project: nn.Module, f_s: Tensor, f_t: Tensor) -> Tensor:
    """Return the mean squared difference of each sample, (N,), between the projected map and the teacher's."""
    difference: Tensor = project(f_s) - f_t
    return difference.square().flatten(1).mean(1)
