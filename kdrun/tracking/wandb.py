"""Weights & Biases: each training is a run, and a command's runs form a group, on wandb.ai or in outputs/wandb."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdrun.tracking.base import Command, Tracker, Training, final_metrics, metrics

# Defaults set before wandb is imported: no question for a key and no output between our lines, and a server that does
# not answer does not hold up a training for long.
QUIET = {
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_HTTP_TIMEOUT": "15",
    "WANDB__GRAPHQL_RETRY_MAX": "2",
    "WANDB__FILE_STREAM_RETRY_MAX": "3",
    "WANDB__FILE_STREAM_TIMEOUT_SECONDS": "15",
}


def start(command: Command) -> Tracker:
    """Return the tracker of a command."""
    return WeightsAndBiases(command)


class WeightsAndBiases:
    """Writes settings as the configuration, metrics by epoch under the names of history.csv, and the result."""

    def __init__(self, command: Command) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import wandb

        self.wandb: Any = wandb
        self.command = command
        self.folder = Path(os.environ.get("WANDB_DIR") or command.outputs)
        self.folder.mkdir(parents=True, exist_ok=True)  # else wandb would write into a temporary folder
        offline = os.environ.get("WANDB_MODE") in ("offline", "dryrun")
        kept = os.path.relpath(self.folder / "wandb")
        self.view_command = f"wandb sync {kept}/offline-run-*" if offline else "the project at wandb.ai"
        self.runs: dict[str, Any] = {}  # of the running trainings, by fingerprint

    def begin(self, training: Training) -> None:
        """Begin a run; a resumed training continues its earlier run, whose id is part of its folder's name."""
        known = sorted((self.folder / "wandb").glob(f"*run-*-{training.fingerprint}-*")) if training.resumed else []
        again = known[-1].name.rpartition(f"-{training.fingerprint}-")[2] if known else uuid.uuid4().hex[:6]
        self.runs[training.fingerprint] = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT") or f"kdrun-{training.dataset}",
            dir=str(self.folder),
            id=f"{training.fingerprint}-{again}",
            name=training.label,
            group=os.path.relpath(self.command.folder, self.command.outputs),
            job_type=training.role,
            config={
                **training.settings(),
                "fingerprint": training.fingerprint,
                "command": self.command.typed,
                "formula": training.formula,
                "artifact": training.artifact,
            },
            resume="allow",
            reinit="create_new",  # several trainings of a cohort run at once
        )

    def epoch(self, training: Training, row: Mapping[str, float]) -> None:
        """Write an epoch's metrics, unless the run has them from before it was resumed."""
        run, epoch = self.runs[training.fingerprint], int(row["epoch"])
        if epoch >= run.starting_step:
            run.log(metrics(row), step=epoch)

    def end(self, training: Training, result: Mapping[str, Any]) -> None:
        """Write the final metrics into the summary; a diverged training is marked as failed, with the reason there."""
        run = self.runs.pop(training.fingerprint)
        for epoch, values in final_metrics(result):
            name = next(iter(values)).partition(".")[0] if values else ""
            run.summary.update({**values, f"{name}.epoch": epoch})
        run.summary.update({key: result[key] for key in ("status", "reason") if result[key] is not None})
        run.finish(exit_code=0 if result["status"] == "done" else 1)

    def close(self) -> None:
        """End the runs of trainings that have not ended."""
        while self.runs:
            self.runs.popitem()[1].finish(exit_code=1)
