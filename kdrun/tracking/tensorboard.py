"""TensorBoard: an event file per training in the run's folder, where `tensorboard --logdir outputs` finds it.

Only tensorboard's own record writer is used. The usual SummaryWriter writes in a thread, where the error of a full
disk is lost, and opens files through TensorFlow if that is installed, which takes seconds to import.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from kdrun.tracking.base import Command, Tracker, Training, final_metrics, metrics


def start(command: Command) -> Tracker:
    """Return the tracker of a command."""
    return TensorBoard(command)


class TensorBoard:
    """Writes scalars by epoch, the settings for the HParams tab, and the formula as text."""

    def __init__(self, command: Command) -> None:
        self.command, self.files = command, dict[str, Path]()
        self.view_command = f"tensorboard --logdir {os.path.relpath(command.outputs)}"

    def begin(self, training: Training) -> None:
        """Start the training's event file; after a restart in the same run's folder it replaces the earlier file."""
        own = f".{training.fingerprint}"
        folder = self.command.folder / "tensorboard" / re.sub(r"[^\w=.,+]+", "-", training.label).strip("-")
        if any(not path.name.endswith(own) for path in folder.glob("*tfevents*")):  # another training has this label
            folder = folder.with_name(f"{folder.name}-{training.fingerprint}")
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}{own}"
        for path in folder.glob(f"*tfevents*{own}"):
            path.unlink()
            name = path.name  # so that a reader that has it open continues
        folder.mkdir(parents=True, exist_ok=True)
        self.files[training.fingerprint] = folder / name
        settings = training.settings()
        self._write(
            training,
            Event(file_version="brain.Event:2"),
            # tells readers of the deleted file to drop its events
            Event(session_log=SessionLog(status=SessionLog.START), step=1),
            Event(summary=_settings(training, settings)),
            Event(summary=_text("training", _description(training, self.command, settings))),
        )

    def epoch(self, training: Training, row: Mapping[str, float]) -> None:
        """Write one scalar per metric."""
        self._write(training, _scalars(int(row["epoch"]), metrics(row)))

    def end(self, training: Training, result: Mapping[str, Any]) -> None:
        """Write the final metrics, and the reason if the training diverged."""
        done = result["status"] == "done"
        ended = plugin_data_pb2.SessionEndInfo(
            status=api_pb2.STATUS_SUCCESS if done else api_pb2.STATUS_FAILURE, end_time_secs=time.time()
        )
        data = plugin_data_pb2.HParamsPluginData(session_end_info=ended)
        failure = [] if done else [Event(summary=_text("failed", f"{result['status']}: {result['reason']}"))]
        measured = [_scalars(epoch, values) for epoch, values in final_metrics(result)]
        self._write(training, *measured, *failure, Event(summary=_hparams(metadata.SESSION_END_INFO_TAG, data)))
        del self.files[training.fingerprint]

    def close(self) -> None:
        """Close nothing: each event is in its file as soon as it is sent."""
        self.files.clear()

    def _write(self, training: Training, *events: Any) -> None:
        with self.files[training.fingerprint].open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                event.wall_time = time.time()
                writer.write(event.SerializeToString())


def _scalars(epoch: int, values: Mapping[str, float]) -> Any:
    scalars = [Summary.Value(tag=_tag(name), simple_value=value) for name, value in values.items()]
    return Event(summary=Summary(value=scalars), step=epoch)


def _tag(column: str) -> str:
    """Return a column's tag, TensorBoard's group first: accuracy/val for val_accuracy, loss/kd for loss.kd."""
    part = re.fullmatch(r"(train|val|test)_(\w+)", column)
    return f"{part[2]}/{part[1]}" if part else column.replace(".", "/", 1)


def _settings(training: Training, settings: Mapping[str, bool | int | float | str]) -> Any:
    began = plugin_data_pb2.SessionStartInfo(group_name=training.fingerprint, start_time_secs=training.began)
    for key, value in settings.items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        setattr(began.hparams[key], f"{kind}_value", value)
    return _hparams(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=began))


def _hparams(tag: str, data: Any) -> Any:
    about = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _text(tag: str, text: str) -> Any:
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    one = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", tensor_shape=one, string_val=[text.encode()])
    return Summary(value=[Summary.Value(tag=f"{tag}/text_summary", metadata=about, tensor=tensor)])


def _description(training: Training, command: Command, settings: Mapping[str, bool | int | float | str]) -> str:
    """Return a description of the training in Markdown."""
    cells = {key: " ".join(str(value).split()).replace("|", "\\|") for key, value in settings.items()}
    rows = "\n".join(f"| {key} | {cell} |" for key, cell in cells.items())
    return (
        f"{training.label} on {training.dataset}: {training.formula}\n\n    {command.typed}\n\n"
        f"In the store: {training.artifact}\n\n| setting | value |\n|---|---|\n{rows}\n"
    )
