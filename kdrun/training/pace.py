"""Predict how long the trainings of a command will take, from the pace of those that already ran."""

from __future__ import annotations

from collections.abc import Iterable

from kdrun.spec import canonical
from kdrun.training.request import Request


class Pace:
    """The seconds per image of each kind of training so far, and the trainings that have not begun."""

    def __init__(self) -> None:
        self._per_image: dict[str, float] = {}  # by kind
        self._waiting: dict[str, Request] = {}  # by fingerprint
        self._work = self._wall = 0.0  # seconds of the epochs, and of wall-clock time including measuring and saving

    def expect(self, requests: Iterable[Request]) -> None:
        """Count these trainings among those that have not begun."""
        self._waiting |= {r.spec.fingerprint: r for r in requests if not r.adopted}

    def begin(self, requests: Iterable[Request]) -> None:
        """Count these trainings as begun."""
        for request in requests:
            self._waiting.pop(request.spec.fingerprint, None)

    def measure(self, request: Request, seconds: float) -> None:
        """Take the seconds of an epoch as the pace of trainings of this kind."""
        self._per_image[kind(request)] = seconds / len(request.sets.train)
        self._work += seconds

    def passed(self, seconds: float) -> None:
        """Add wall-clock time that passed while epochs were trained, including measuring and saving."""
        self._wall += seconds

    def expected(self) -> list[Request]:
        """Return the trainings that have not begun."""
        return list(self._waiting.values())

    @property
    def waiting(self) -> int:
        """The number of trainings that have not begun."""
        return len(self._waiting)

    def left(self, running: Iterable[tuple[Request, int]], *, waiting: bool = True) -> float | None:
        """Return the seconds until the running trainings are done and, with `waiting`, those that have not begun.

        `running` has the number of epochs left for each. Return None if a kind of training was not measured yet.
        """
        later = [(r, int(r.spec.recipe["epochs"])) for r in self._waiting.values()] if waiting else []
        total = 0.0
        for request, epochs in [*running, *later]:
            if (pace := self._per_image.get(kind(request))) is None:
                return None
            total += pace * epochs * len(request.sets.train)
        return total * max(1.0, self._wall / self._work) if self._work else None


def kind(request: Request) -> str:
    """Return a key of what determines how long a step takes: network, loss terms, batch size, precision, teachers."""
    spec = request.spec
    model = {key: value for key, value in spec.model.items() if key not in ("init", "digest")}
    teachers = max(len(spec.teachers), len(spec.peers))
    how = [spec.recipe["batch_size"], spec.precision, spec.compiled, bool(spec.recipe["ema_decay"])]
    return canonical([model, sorted(spec.objective), *how, teachers])
