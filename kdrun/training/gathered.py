"""Outputs of all ranks for a batch, each gathered when a loss first reads it: no rank sends what no loss needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from torch import Tensor

from kdrun.models.base import Outputs

Gather = Callable[[Tensor], Tensor]


class GatheredOutputs:
    """Outputs for a whole batch, from a rank's own rows and a function that gathers those of all ranks."""

    def __init__(self, own: Outputs, gather: Gather) -> None:
        self._own, self._gather = own, gather
        self.features = GatheredMaps(own.features, gather)
        self.preactivations = GatheredMaps(own.preactivations, gather)
        self.strong = None if own.strong is None else GatheredOutputs(own.strong, gather)

    @cached_property
    def logits(self) -> Tensor:
        """Logits (N, C)."""
        return self._gather(self._own.logits)

    @cached_property
    def embedding(self) -> Tensor:
        """Embeddings (N, D)."""
        return self._gather(self._own.embedding)


class GatheredMaps(Mapping[str, Tensor]):
    """Feature maps (N, C, H, W) by name."""

    def __init__(self, own: Mapping[str, Tensor], gather: Gather) -> None:
        self._own, self._gather, self._gathered = own, gather, dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._gathered:
            self._gathered[name] = self._gather(self._own[name])
        return self._gathered[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._own))

    def __len__(self) -> int:
        return len(self._own)
