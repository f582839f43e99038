"""Progress of one training, or of a cohort: a tqdm bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import logging
from types import TracebackType

from tqdm import tqdm

log = logging.getLogger(__name__)


class Bar:
    """Counts images over all epochs; shows epoch, loss terms, accuracy, images/s and time left."""

    def __init__(self, label: str, *, epochs: int, images: int, start: int = 0) -> None:
        self.label, self.epochs = label, epochs
        self._bar = tqdm(
            total=epochs * images,
            initial=start,
            desc=label,
            unit="img",
            unit_scale=True,
            leave=False,
            disable=None,  # silent off a terminal
            dynamic_ncols=True,
            mininterval=0.2,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.close()

    def step(self, images: int) -> None:
        """Count one batch."""
        self._bar.update(images)

    def epoch(self, name: str, row: dict[str, float]) -> None:
        """Show one learner's finished epoch: in the bar, and as a line in the log."""
        terms = " ".join(f"{k.removeprefix('loss.')} {v:.4f}" for k, v in row.items() if k.startswith("loss."))
        shown = [f"train {100 * row['train_accuracy']:.2f}%"] if row["train_accuracy"] == row["train_accuracy"] else []
        shown += [f"{k.removesuffix('_accuracy')} {100 * row[k]:.2f}%" for k in ("val_accuracy", "test_accuracy") if k in row]
        number = f"epoch {row['epoch']:.0f}/{self.epochs}"
        self._bar.set_postfix_str(f"{number} {name}: {terms} {' '.join(shown)}", refresh=False)
        log.info(
            "%s, %s: %s: loss %.4f (%s), %s, lr %.2e, %.0f img/s",
            self.label, number, name, row["loss"], terms, ", ".join(shown), row["lr"], row["images_per_second"],
            extra={"shown_by_bar": True},
        )  # fmt: skip
