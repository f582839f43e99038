"""Progress of a cohort: a tqdm bar on a terminal, elsewhere a line from time to time."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

from kdrun import console
from kdrun.console import bars_off

log = logging.getLogger(__name__)
LINE_SECONDS = 30.0  # between two progress lines, where no bar is shown
MOST_LINES = 12  # learners with a line of their own: a large sweep would fill the terminal; the log has all
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def _bar() -> Any:
    """Return tqdm's bar, or its widget in a notebook with ipywidgets."""
    if "ipykernel" not in sys.modules:
        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns if ipywidgets are missing; text lines replace them
        from tqdm.auto import tqdm as drawn
    return drawn


class Bar:
    """A bar that counts images over all epochs, and a line per learner with its loss terms and accuracy.

    `lines` maps the learners' names to short ones, so that a line fits into 80 columns. `left` returns the time left in
    words, of this cohort and of the whole command.
    """

    def __init__(
        self,
        title: str,
        lines: Mapping[str, str],
        *,
        epochs: int,
        images: int,
        start: int = 0,
        left: Callable[[], tuple[str, str]] = lambda: ("", ""),
    ) -> None:
        self.epochs, self._short, self._left = epochs, lines, left
        self._title, self._images, self._seen = title, images, start
        self._due = time.monotonic() + LINE_SECONDS
        shared: dict[str, Any] = {"leave": False, "disable": bars_off(), "dynamic_ncols": True}
        self._bar = _bar()(
            total=epochs * images,
            initial=start,
            desc=title,
            unit=" img",
            unit_scale=True,
            mininterval=0.2,
            position=0,
            bar_format=FORMAT,
            **shared,
        )
        self._bar.set_postfix_str(f"epoch {start // images}/{epochs}")
        shown = dict(list(lines.items())[:MOST_LINES])
        if more := len(lines) - len(shown):
            shown["…"] = f"and {more} more"
        self._lines = {
            name: tqdm(desc=f"  {short}", position=i, bar_format="{desc}{bar}", **shared)  # {bar}: cut to the width
            for i, (name, short) in enumerate(shown.items(), start=1)
        }
        self._rest = tqdm(position=1 + len(shown), bar_format="{desc}{bar}", **shared)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for bar in (self._rest, *self._lines.values(), self._bar):
            bar.close()

    def step(self, images: int) -> None:
        """Count one batch; where there is no bar, log from time to time how far the training has come."""
        self._bar.update(images)
        self._seen += images
        if self._bar.disable and (now := time.monotonic()) >= self._due:
            self._due = now + LINE_SECONDS
            number = f"{self._title}: epoch {min(self.epochs, self._seen // self._images + 1)} of {self.epochs}"
            log.log(console.RESULT, "%s", ", ".join(filter(None, [number, *self._left()])))

    def epoch(self, name: str, row: Mapping[str, float], epochs: int) -> None:
        """Show a learner's finished epoch in its line and in the log."""
        terms = " ".join(f"{k.removeprefix('loss.')} {v:.4f}" for k, v in row.items() if k.startswith("loss."))
        parts = [k for k in ("train", "val", "test") if row.get(f"{k}_accuracy", float("nan")) >= 0]  # NaN: no labels
        # running: on augmented images while the weights change; tables measure the committed weights
        accuracy = [f"{'running ' * (k == 'train')}{k} {100 * row[f'{k}_accuracy']:.2f}%" for k in parts]
        number = f"epoch {row['epoch']:.0f}/{epochs}"
        self._bar.set_postfix_str(f"epoch {row['epoch']:.0f}/{self.epochs}", refresh=False)
        if name in self._lines:
            line = f"  {self._short[name]}: {terms} {' '.join(accuracy)}"
            self._lines[name].set_description_str(console.with_role(line, sys.stderr))
        if rest := self._left()[1]:
            self._rest.set_description_str(f"  {rest}")
        log.log(
            console.DETAIL,
            "%s, %s: loss %.4f (%s), %s, lr %.2e, %.0f img/s",
            name, number, row["loss"], terms, ", ".join(accuracy), row["lr"], row["images_per_second"],
        )  # fmt: skip
