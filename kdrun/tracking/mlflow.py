"""MLflow: each training is a run nested in one for its command, in outputs/mlflow.db or at MLFLOW_TRACKING_URI."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from filelock import FileLock

from kdrun.checks import as_typed
from kdrun.tracking.base import Command, Tracker, Training, final_metrics, metrics

# Defaults set before mlflow is imported: no telemetry, no output between our lines, and a server that does not answer
# does not hold up a training for minutes.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
PARENT = "mlflow.parentRunId"
PATIENCE_SECONDS = 60
BATCH = 100  # parameters that a store accepts in one call
PARAMETER_LENGTH, TAG_LENGTH = 6000, 8000  # characters that a store accepts; more is an error


def start(command: Command) -> Tracker:
    """Return the tracker of a command."""
    return MLflow(command)


class MLflow:
    """Writes settings, metrics by epoch under the names of history.csv, and the result."""

    def __init__(self, command: Command) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # Tracking logs a failure, once
        from mlflow.tracking import MlflowClient

        self.command = command
        self.outputs = command.outputs.absolute()
        self.uri = os.environ.get("MLFLOW_TRACKING_URI")
        # locked: parallel cells would otherwise all create the store's tables, and then the experiment
        locks = self.outputs / "store" / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(locks / "mlflow.db", timeout=PATIENCE_SECONDS)
        with self.lock:
            self.client: Any = MlflowClient(self.uri or f"sqlite:///{self.outputs / 'mlflow.db'}")
        shown = self.uri or f"sqlite:///{os.path.relpath(self.outputs / 'mlflow.db')}"
        self.view_command = shown if shown.startswith("http") else f"mlflow ui --backend-store-uri {shown}"
        self.parent: str | None = None
        self.runs: dict[str, str] = {}  # of the running trainings, by fingerprint
        self.known: dict[str, int] = {}  # the last epoch that the store had before a training was resumed, by run

    def begin(self, training: Training) -> None:
        """Create a run for the training; a resumed training continues its own run if that is unfinished."""
        experiment = self._experiment(training.dataset)
        parent = self._parent(experiment)
        run = self._unfinished(experiment, training) if training.resumed else None
        if run is None:
            run = self.client.create_run(experiment, start_time=int(1000 * training.began), run_name=training.label)
            self._settings(run.info.run_id, training)
        else:
            self.client.update_run(run.info.run_id, status="RUNNING")
            before = run.data.tags.get(PARENT)  # the run of a killed command, whose training this one continues
            if before not in (None, parent) and self.client.get_run(before).info.status == "RUNNING":
                self.client.set_terminated(before, "KILLED")
        own = self.runs[training.fingerprint] = run.info.run_id
        self.known[own] = max((metric.step for metric in self.client.get_metric_history(own, "loss")), default=0)
        self._tag(
            own,
            {
                PARENT: parent,
                "fingerprint": training.fingerprint,
                "command": self.command.typed,
                "formula": training.formula,
                "artifact": training.artifact,
            },
        )

    def epoch(self, training: Training, row: Mapping[str, float]) -> None:
        """Write an epoch's metrics unless the store has them."""
        own, epoch = self.runs[training.fingerprint], int(row["epoch"])
        if epoch > self.known[own]:
            self._metrics(own, epoch, metrics(row))

    def end(self, training: Training, result: Mapping[str, Any]) -> None:
        """Write the final metrics; a diverged training is FAILED, with the reason in its tags."""
        own = self.runs[training.fingerprint]
        for epoch, values in final_metrics(result):
            self._metrics(own, epoch, values)
        self._tag(own, {key: result[key] for key in ("status", "reason") if result[key] is not None})
        self.client.set_terminated(own, "FINISHED" if result["status"] == "done" else "FAILED")
        del self.runs[training.fingerprint]

    def close(self) -> None:
        """End the command's run; trainings that have not ended are KILLED."""
        status = "KILLED" if self.runs else "FINISHED"
        while self.runs:
            self.client.set_terminated(self.runs.popitem()[1], "KILLED")
        if self.parent is not None:
            self.client.set_terminated(self.parent, status)

    def _experiment(self, dataset: str) -> str:
        name = f"kdrun {self.command.verb} {dataset}"
        with self.lock:
            if (experiment := self.client.get_experiment_by_name(name)) is not None:
                return str(experiment.experiment_id)
            location = None if self.uri else (self.outputs / "mlruns").as_uri()
            return str(self.client.create_experiment(name, artifact_location=location))

    def _parent(self, experiment: str) -> str:
        """Return the id of the command's run, after creating it, or setting it to running, if need be."""
        if self.parent is None:
            name = os.path.relpath(self.command.folder, self.outputs)  # e.g. runs/distill/2026-05-01_10-00-00-3f9c2a
            self.parent = str(self.client.create_run(experiment, run_name=name).info.run_id)
            self._tag(self.parent, {"command": self.command.typed})
        elif not self.runs:
            self.client.update_run(self.parent, status="RUNNING")
        return self.parent

    def _unfinished(self, experiment: str, training: Training) -> Any:
        """Return the newest run of this training unless it has ended."""
        own = f"tags.fingerprint = '{training.fingerprint}'"
        newest = self.client.search_runs([experiment], own, order_by=["attributes.start_time DESC"], max_results=1)
        return next((run for run in newest if run.info.status in ("RUNNING", "KILLED")), None)

    def _settings(self, run: str, training: Training) -> None:
        from mlflow.entities import Param

        settings = [Param(_name(key), as_typed(value)[:PARAMETER_LENGTH]) for key, value in training.settings().items()]
        for first in range(0, len(settings), BATCH):
            self.client.log_batch(run, params=settings[first : first + BATCH], synchronous=True)

    def _tag(self, run: str, tags: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        run_tags = [RunTag(key, str(value)[:TAG_LENGTH]) for key, value in tags.items()]
        self.client.log_batch(run, tags=run_tags, synchronous=True)

    def _metrics(self, run: str, epoch: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())  # milliseconds, as MLflow counts
        metrics = [Metric(_name(key), value, now, epoch) for key, value in values.items()]
        self.client.log_batch(run, metrics=metrics, synchronous=True)


def _name(key: str) -> str:
    """Return a name with only the characters that MLflow allows."""
    return re.sub(r"[^\w./: -]", "_", key)
