"""Event files, read back by TensorBoard itself, hold what history.csv and result.json hold."""

import dataclasses

import numpy as np
import pytest

from kdrun.tracking.base import Tracking
from tests.tracking.conftest import STEPS, history

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from kdrun.tracking import tensorboard

TAGS = {
    "lr": "lr",
    "seconds": "seconds",
    "images_per_second": "images_per_second",
    "loss": "loss",
    "loss.ce": "loss/ce",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/val",
    "val_nll": "nll/val",
}


@pytest.fixture
def door(place):
    """Return a function that makes a tracking into a run's folder."""
    return lambda run="run": Tracking("tensorboard", lambda: tensorboard.start(place.command(run)))


def read(folder):
    """Load a folder of event files whole."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    return events.Reload()


def scalars(folder):
    """Return the scalars below a folder: tag -> [(step, value), …]."""
    events = read(folder)
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def of_history(artifact):
    """Return what TensorBoard should hold of an artifact's epochs: its scalars are of single precision."""
    rows = history(artifact)
    assert rows[0].keys() == {"epoch", *TAGS}
    return {tag: [(int(row["epoch"]), float(np.float32(row[key]))) for row in rows] for key, tag in TAGS.items()}


def by_epoch(result):
    return {tag: values for tag, values in result.items() if tag.split("/")[0] not in ("selected", "last")}


def folder(place, label="baseline-net-seed-0", run="run"):
    return place.outputs / "runs" / "distill" / run / "tensorboard" / label


def text(events, tag):
    (event,) = events.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def ended(events):
    content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    return metadata.parse_session_end_info_plugin_data(content).status


def test_scalars_are_the_columns_of_history_csv_by_epoch(place, request_for, door):
    (artifact,) = place.train([request_for()], door())
    values = scalars(folder(place))
    assert by_epoch(values) == of_history(artifact)
    point = artifact.result["selected"]
    assert values["selected/test_accuracy"] == [(point["epoch"], float(np.float32(point["test"]["accuracy"])))]
    assert {tag for tag in values if tag.startswith("last/")} == {
        f"last/{part}_{kind}" for part in ("train", "val", "test") for kind in ("accuracy", "nll")
    }


def test_what_cannot_be_measured_without_labels_is_left_out(place, request_for, door, digits):
    unlabelled = digits.train.with_labels(digits.train.labels * 0 - 1)
    request = request_for(epochs=1)
    request = dataclasses.replace(request, sets=dataclasses.replace(request.sets, train=unlabelled))
    place.train([request], door())
    values = scalars(folder(place))
    assert "accuracy/train" not in values and len(values["accuracy/val"]) == 1


def test_the_settings_stand_in_the_hparams_tab_and_as_text(place, request_for, door):
    request = dataclasses.replace(request_for(epochs=1, milestones=[1, 2]), notes={"T": 4.0})
    (artifact,) = place.train([request], door())
    events = read(folder(place))
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    assert settings["T"].number_value == 4.0 and settings["recipe.lr"].number_value == 0.1
    assert settings["data.flip"].bool_value is True
    assert settings["recipe.milestones"].string_value == "[1,2]"
    assert ended(events) == api_pb2.STATUS_SUCCESS
    sentence = text(events, "training")
    assert "CE(y, p_s)" in sentence and "kdrun distill T=4" in sentence
    assert artifact.folder.name in sentence and "| recipe.lr | 0.1 |" in sentence


def test_a_training_that_diverges_has_failed_for_the_reason_in_its_text(place, request_for, door):
    (lost,) = place.train([request_for(lr=1e30)], door())
    events = read(folder(place))
    assert ended(events) == api_pb2.STATUS_FAILURE
    assert text(events, "failed") == f"diverged: {lost.result['reason']}"
    assert events.Tags()["scalars"] == []


@pytest.mark.parametrize("again", ["another", "run"])
def test_a_resumed_training_has_every_epoch_once(place, request_for, door, again):
    place.train([request_for()], door(), batches=2 * STEPS + 1)
    assert [step for step, _ in scalars(folder(place))["loss"]] == [1, 2]
    (artifact,) = place.train([request_for()], door(again))
    assert by_epoch(scalars(folder(place, run=again))) == of_history(artifact)
    assert len(list(folder(place, run=again).iterdir())) == 1


def test_who_read_a_training_before_it_was_resumed_shows_no_epoch_twice(place, request_for, door):
    place.train([request_for()], door(), batches=2 * STEPS + 1)
    reader = read(folder(place))
    assert [e.step for e in reader.Scalars("loss")] == [1, 2]
    place.train([request_for()], door())
    assert [e.step for e in reader.Reload().Scalars("loss")] == [1, 2, 3]


def test_trainings_of_one_name_do_not_share_a_folder(place, request_for, door):
    one, other = place.train([request_for(), request_for(lr=0.2)], door())
    assert one.fingerprint != other.fingerprint
    files = {path.name: path for path in folder(place, "").iterdir()}
    assert set(files) == {"baseline-net-seed-0", f"baseline-net-seed-0-{other.fingerprint}"}
    for path, artifact in zip(sorted(files.values()), (one, other), strict=True):
        assert by_epoch(scalars(path)) == of_history(artifact)


def test_a_killed_command_leaves_readable_events_and_the_next_has_every_epoch_once(desk):
    words = [
        "train", "baseline", "student=mlp", "student.hidden=[16]", "seeds=1", "transfer.fraction=0.1",
        "recipe.epochs=3", "recipe.batch_size=28", "report=false", "tracker=tensorboard",
    ]  # fmt: skip
    desk.type(*words, code=-9, KDRUN_FAULT=f"after_batch:{2 * STEPS + 3}:kill")
    killed = desk.latest
    desk.type(*words)
    (artifact,) = desk.outputs.glob("store/baseline-*")
    rows = history(dataclasses.make_dataclass("Artifact", ["folder"])(artifact))
    losses = [(int(row["epoch"]), float(np.float32(row["loss"]))) for row in rows]
    assert scalars(killed / "tensorboard" / "baseline-mlp-seed-0")["loss"] == losses[:2]
    assert scalars(desk.latest / "tensorboard" / "baseline-mlp-seed-0")["loss"] == losses


def test_what_the_cells_of_a_sweep_share_is_tracked_in_the_sweeps_folder(desk):
    output = desk.type(
        "train", "baseline", "-m", "student=mlp", "student.hidden=[8]", "seeds=1", "transfer.fraction=0.1",
        "recipe.epochs=1,2", "report=false", "tracker=tensorboard",
    )  # fmt: skip
    assert "tracker=tensorboard; view with: tensorboard --logdir outputs" in output
    files = sorted(path.parent.relative_to(desk.latest).as_posix() for path in desk.latest.rglob("*tfevents*"))
    assert files == [f"tensorboard/baseline-mlp-recipe.epochs={n}-seed-0" for n in (1, 2)]
    assert [len(scalars(desk.latest / path)["loss"]) for path in files] == [1, 2]
