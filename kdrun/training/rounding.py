"""How exactly a teacher's logits are stored: as they are, in half precision, or only the k largest of each image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HALF = "float16"


@dataclass(frozen=True)
class Rounding:
    """How logits (n, C) are stored, as tensors with n rows each, and read by a student.

    With `top_k` the k largest logits of a row are stored, and the probability of the others at T = 1 is spread evenly:
    each of these becomes log(Σ exp z / (C − k)), summed over the others. In float16, logits beyond ±65504 become
    ±65504.
    """

    dtype: str = "float32"
    top_k: int | None = None

    @classmethod
    def of_spec(cls, bank: Mapping[str, Any]) -> Rounding:
        """Return the rounding that a spec's `bank` describes."""
        return cls(**bank)

    @property
    def exact(self) -> bool:
        """Whether logits are kept as they are."""
        return self == Rounding()

    def bytes(self, classes: int) -> int:
        """Return the bytes that a row takes."""
        each = 2 if self.dtype == HALF else 4
        if self.top_k is None:
            return each * classes
        return each * (self.top_k + 1) + _smallest(classes).itemsize * self.top_k

    def pack(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the tensors to store for logits (n, C)."""
        if self.top_k is None:
            return {"logits": self._rounded(logits)}
        classes = logits.shape[1]
        ranked = logits.float().sort(dim=1, descending=True, stable=True)  # stable: ties go to the first classes
        kept, others = ranked.values[:, : self.top_k], ranked.values[:, self.top_k :]
        rest = others.logsumexp(1, keepdim=True) - math.log(classes - self.top_k)
        return {
            "logits": self._rounded(torch.cat([kept, rest], dim=1)),
            "classes": ranked.indices[:, : self.top_k].to(_smallest(classes)).contiguous(),
        }

    def unpack(self, packed: Mapping[str, Tensor], classes: int) -> Tensor:
        """Return the logits (n, C) that a student reads from stored tensors."""
        logits = packed["logits"].float() if self.dtype == HALF else packed["logits"]
        if self.top_k is None:
            return logits
        whole = logits[:, -1:].expand(-1, classes).contiguous()
        return whole.scatter_(1, packed["classes"].long(), logits[:, :-1])

    def rounded(self, logits: Tensor) -> Tensor:
        """Return logits (n, C) as a student reads them."""
        return logits if self.exact else self.unpack(self.pack(logits), logits.shape[1])

    def _rounded(self, logits: Tensor) -> Tensor:
        if self.dtype != HALF:
            return logits
        limit = torch.finfo(torch.float16).max
        return logits.float().clamp(-limit, limit).half()

    def __str__(self) -> str:
        largest = "" if self.top_k is None else f", the {self.top_k} largest"
        return self.dtype + largest


EXACT = Rounding()


def _smallest(classes: int) -> torch.dtype:
    """Return the smallest integer type that can hold every class number."""
    return next(t for t in (torch.uint8, torch.int16, torch.int32) if classes - 1 <= torch.iinfo(t).max)
