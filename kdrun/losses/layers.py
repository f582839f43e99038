"""Which layers a term compares: `VectorTerm`, `MapTerm`, and the choice of layers by name or by depth."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdrun.checks import nearest
from kdrun.losses.base import Setting, Term, at_least_float32
from kdrun.models.base import Outputs

MOST = 4  # stages that published code compares; there, VGG's first block counts as a stem


class VectorTerm(Term):
    """A term on one vector per image, (N, d): the embedding, or the layers that are named.

    Raise ValueError, in `prepare`, if a network does not have a layer.
    """

    def __init__(self, student_layer: str | None = None, teacher_layer: str | None = None) -> None:
        super().__init__()
        self.student_layer, self.teacher_layer = student_layer, teacher_layer

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        self.vectors(student, teacher)  # names are looked up before the training starts

    def vectors(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Return the vectors to compare, (N, d_s) and (N, d_t), in at least float32; the teacher's is detached."""
        f_s = vector("student", student, self.chosen(self.student_layer, student))
        f_t = vector("teacher", teacher, self.chosen(self.teacher_layer, teacher))
        return at_least_float32(f_s), at_least_float32(f_t.detach())

    def chosen(self, layer: str | None, outputs: Outputs) -> str | None:
        """Return the layer to compare; `layer` is the one that was named, if any. None stands for the embedding."""
        return layer


class MapTerm(Term):
    """A term on feature maps, (N, c, h, w): the layers that are named, or the stages paired by depth.

    Raise ValueError, in `prepare`, if layers do not exist or cannot be paired.
    """

    preactivation = False
    """Whether maps are taken from before the last ReLU of a stage."""

    def __init__(
        self, student_layers: Sequence[str] | None = None, teacher_layers: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.named = (student_layers, teacher_layers)
        self.pairs: list[tuple[str, str]] = []

    def prepare(self, student: Outputs, teacher: Outputs, setting: Setting) -> None:
        self.pairs = pairs(student, teacher, *self.named, preactivation=self.preactivation)

    def maps(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs of maps that are compared, the student's and the teacher's; the teacher's are detached."""
        maps_s, maps_t = (maps(outputs, preactivation=self.preactivation) for outputs in (student, teacher))
        return [(maps_s[s], maps_t[t].detach()) for s, t in self.pairs]


def maps(outputs: Outputs, *, preactivation: bool = False) -> dict[str, Tensor]:
    """Return the feature maps by name, (N, c, h, w), in order of depth; with `preactivation` before the last ReLU."""
    return outputs.preactivations if preactivation else outputs.features


def pairs(
    student: Outputs,
    teacher: Outputs,
    student_layers: Sequence[str] | None = None,
    teacher_layers: Sequence[str] | None = None,
    *,
    preactivation: bool = False,
) -> list[tuple[str, str]]:
    """Return the pairs of names (student's, teacher's) of the feature maps to compare, from shallow to deep.

    A side that names no layers takes its deepest stages: as many as the other side names, or else as many as both
    networks have, at most four. A stem is paired only if it is named. Raise ValueError if a network has no feature
    maps, if a name is unknown (with the existing names and their shapes), if the lists differ in length, or if a
    layer's output is not a map.
    """
    sides = {
        "student": maps(student, preactivation=preactivation),
        "teacher": maps(teacher, preactivation=preactivation),
    }
    for side, features in sides.items():
        if not features:
            what = "pre-activations" if preactivation else "feature maps"
            raise ValueError(
                f"the {side}'s network names no {what} to compare; kdrun models lists networks that do, and "
                f"{side}.features=[MODULE,…] names modules of an external one"
                + ("; preactivation=false compares maps after the ReLU" if preactivation else "")
            )
    chosen = {"student": student_layers, "teacher": teacher_layers}
    for side, names in chosen.items():
        for name in names or ():
            check_known(side, name, sides[side])
    stages = {side: [name for name in features if name != "stem"] or list(features) for side, features in sides.items()}
    count = min([len(names) for names in chosen.values() if names is not None] or [MOST, *map(len, stages.values())])
    left, right = (list(stages[side][-count:] if names is None else names) for side, names in chosen.items())
    if not left or len(left) != len(right):
        raise ValueError(
            f"student_layers={typed(left)} and teacher_layers={typed(right)} differ in length: name the same number "
            "of layers in both"
        )
    for side, names in {"student": left, "teacher": right}.items():
        for name in names:
            check_map(side, name, sides[side][name])
    return list(zip(left, right, strict=True))


def vector(side: str, outputs: Outputs, layer: str | None = None) -> Tensor:
    """Return one vector per sample, (N, d): the embedding, or the layer of that name, flattened.

    `side` is student or teacher, for the error message. Raise ValueError if the layer does not exist, or if it is
    the embedding and that of the network is not known.
    """
    if layer in (None, "embedding"):
        if not outputs.embedding.shape[1]:
            raise ValueError(
                f"the {side}'s network has no known embedding, since none of its layers returns the logits. "
                f"{side}.embedding=MODULE names the module whose (pooled) output is the embedding"
            )
        return outputs.embedding
    if layer == "logits":
        return outputs.logits
    check_known(side, layer, outputs.features, "embedding", "logits")
    return outputs.features[layer].flatten(1)


def alike(f_s: Tensor, f_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps in at least float32 and of one size, the larger pooled to the smaller."""
    size = (min(f_s.shape[2], f_t.shape[2]), min(f_s.shape[3], f_t.shape[3]))
    return pooled(at_least_float32(f_s), size), pooled(at_least_float32(f_t), size)


def pooled(f: Tensor, size: Sequence[int]) -> Tensor:
    """Return the map's means over the cells of a grid of `size` (h, w): adaptive average pooling.

    The gradient of torch's own version is not deterministic on a GPU, so a resumed training would not equal an
    uninterrupted one bit for bit.
    """
    ratios = [(own % aim, own // aim) for own, aim in zip(f.shape[2:], size, strict=True)]
    if all(rest == 0 for rest, _ in ratios):
        kernel = [ratio for _, ratio in ratios]
        return f if kernel == [1, 1] else F.avg_pool2d(f, kernel)
    for dim, aim in zip((2, 3), size, strict=True):
        own = f.shape[dim]
        cells = [(i * own // aim, -(-(i + 1) * own // aim)) for i in range(aim)]  # as torch has them; they may overlap
        f = torch.stack([f.narrow(dim, start, stop - start).mean(dim) for start, stop in cells], dim)
    return f


def deepest(outputs: Outputs) -> str | None:
    """Return the name of the last feature map; None if a network names none."""
    return next(reversed(outputs.features), None)


def check_known(side: str, name: str | None, features: Mapping[str, Tensor], *more: str) -> None:
    """Raise ValueError, with the layers that exist and their shapes, if `name` is none of them."""
    if name not in features and name not in more:
        listed = ", ".join([*(f"{n} {shape(x)}" for n, x in features.items()), *more]) or "none"
        raise ValueError(
            f"the {side}'s network has no layer {name}.{nearest(str(name), [*features, *more])} It has: {listed}"
        )


def check_map(side: str, name: str, feature: Tensor) -> None:
    """Raise ValueError if a layer's output is not (N, c, h, w)."""
    if feature.ndim != 4:
        raise ValueError(f"the {side}'s {name} is {shape(feature)} for each image, not a map (channels×height×width)")


def shape(feature: Tensor) -> str:
    """Return a feature's shape without the batch, as messages show it: `64×8×8`."""
    return "×".join(map(str, feature.shape[1:]))


def typed(names: Sequence[str]) -> str:
    """Return names as a user types them: `[stage1,stage2]`."""
    return f"[{','.join(names)}]"
