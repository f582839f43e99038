"""MLflow's own client finds in the store what history.csv and result.json hold."""

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from kdrun import checks
from kdrun.tracking.base import Command, Tracking
from tests.tracking.conftest import STEPS, history

pytestmark = pytest.mark.skipif(
    not all(map(checks.installed, ("mlflow", "sqlalchemy", "alembic"))), reason="needs kdrun[mlflow]"
)

CALLS = []


@contextmanager
def listening():
    """Note every connection that the code below asks for."""
    on = [True]
    calls = ("socket.connect", "socket.getaddrinfo", "urllib.Request")
    sys.addaudithook(lambda event, args: CALLS.append((event, args)) if on and event in calls else None)
    yield
    on.clear()


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A store with no experiment: to make its tables takes seconds."""
    from kdrun.tracking import mlflow

    folder = tmp_path_factory.mktemp("empty")
    with listening():
        tracker = mlflow.start(Command("distill", "kdrun distill", folder / "run", folder))
        tracker.client.search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def client(place, empty, monkeypatch):
    """MLflow's client at the store of the place."""
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(place.outputs.parent)
    place.outputs.mkdir()
    shutil.copy(empty, place.outputs / "mlflow.db")
    return MlflowClient(f"sqlite:///{place.outputs / 'mlflow.db'}")


@pytest.fixture
def door(place):
    """Return a function that makes a tracking for a command."""
    from kdrun.tracking import mlflow

    return lambda run="run": Tracking("mlflow", lambda: mlflow.start(place.command(run)))


def runs(client):
    """Return the runs of the experiment, those of trainings and those of commands, oldest first."""
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    assert experiment.name == "kdrun distill digits"
    result = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    trainings = [run for run in result if "fingerprint" in run.data.tags]
    return trainings, [run for run in result if "fingerprint" not in run.data.tags]


def metrics(client, run):
    """Return all metrics of a run: name -> [(step, value), …]."""
    return {
        key: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def of_history(artifact):
    rows = history(artifact)
    return {key: [(int(row["epoch"]), row[key]) for row in rows] for key in rows[0] if key != "epoch"}


def by_epoch(result):
    return {key: values for key, values in result.items() if key.split(".")[0] not in ("selected", "last")}


def test_metrics_are_the_columns_of_history_csv_to_the_last_bit(place, request_for, door, client):
    (artifact,) = place.train([request_for()], door())
    (run,), _ = runs(client)
    values = metrics(client, run)
    assert by_epoch(values) == of_history(artifact)
    for name in ("selected", "last"):
        point = artifact.result[name]
        for part in ("train", "val", "test"):
            for key in ("accuracy", "nll"):
                assert values[f"{name}.{part}_{key}"] == [(point["epoch"], point[part][key])]


def test_a_run_says_what_was_trained_and_by_which_command(place, request_for, door, client):
    request = dataclasses.replace(request_for(epochs=1, milestones=[1, 2]), notes={"T": 4.0})
    (artifact,) = place.train([request], door())
    (run,), (parent,) = runs(client)
    assert run.info.run_name == "baseline net seed 0"
    tags = {key: run.data.tags[key] for key in ("fingerprint", "command", "formula", "artifact", "status")}
    assert tags == {
        "fingerprint": artifact.fingerprint,
        "command": "kdrun distill T=4",
        "formula": "CE(y, p_s)",
        "artifact": artifact.folder.name,
        "status": "done",
    }
    assert (run.data.params["recipe.lr"], run.data.params["T"], run.data.params["seed"]) == ("0.1", "4.0", "0")
    assert (run.data.params["data.flip"], run.data.params["recipe.milestones"]) == ("true", "[1,2]")
    assert parent.info.run_name == "runs/distill/run" and run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (run.info.status, parent.info.status) == ("FINISHED", "FINISHED")


def test_what_is_longer_than_a_store_takes_is_cut_and_tracking_goes_on(place, request_for, door, client, monkeypatch):
    monkeypatch.setattr("kdrun.tracking.mlflow.PARAMETER_LENGTH", 4)  # MLflow's is 6000
    place.train([dataclasses.replace(request_for(epochs=1), notes={"T": 4.123456})], door())
    (run,), _ = runs(client)
    assert run.data.params["T"] == "4.12" and run.info.status == "FINISHED"


def test_the_trainings_of_a_command_stand_below_one_run(place, request_for, door, client):
    place.train([request_for(epochs=1), request_for(epochs=2), request_for(epochs=1, seed=1)], door())
    trainings, (parent,) = runs(client)
    assert {run.data.tags["mlflow.parentRunId"] for run in trainings} == {parent.info.run_id}
    assert len(trainings) == 3 and {run.info.status for run in [*trainings, parent]} == {"FINISHED"}


def test_a_training_that_diverges_has_failed_and_its_reason_is_a_tag(place, request_for, door, client):
    lost, _ = place.train([request_for(lr=1e30), request_for(epochs=1)], door())
    trainings, _ = runs(client)
    by_status = {run.info.status: run for run in trainings}
    assert set(by_status) == {"FAILED", "FINISHED"}
    assert by_status["FAILED"].data.tags["status"] == "diverged"
    assert by_status["FAILED"].data.tags["reason"] == lost.result["reason"]
    assert by_status["FAILED"].data.metrics == {}


def test_a_resumed_training_goes_on_in_its_run_and_has_every_epoch_once(place, request_for, door, client):
    place.train([request_for()], door(), batches=2 * STEPS + 1)
    (run,), (first,) = runs(client)
    assert (run.info.status, first.info.status) == ("KILLED", "KILLED")
    assert [step for step, _ in metrics(client, run)["loss"]] == [1, 2]
    (artifact,) = place.train([request_for()], door("again"))
    (resumed,), (_, second) = runs(client)
    assert resumed.info.run_id == run.info.run_id and resumed.info.status == "FINISHED"
    assert by_epoch(metrics(client, resumed)) == of_history(artifact)
    assert resumed.data.tags["mlflow.parentRunId"] == second.info.run_id


def test_what_a_kill_left_running_is_ended_when_its_training_is_resumed(place, request_for, door, client):
    place.train([request_for()], door(), batches=STEPS + 1)
    for run in itertools.chain(*runs(client)):
        client.update_run(run.info.run_id, status="RUNNING")  # as a kill would leave them
    (artifact,) = place.train([request_for()], door("again"))
    (run,), (first, second) = runs(client)
    assert [r.info.status for r in (first, run, second)] == ["KILLED", "FINISHED", "FINISHED"]
    assert by_epoch(metrics(client, run)) == of_history(artifact)


def test_a_training_anew_is_a_run_anew(place, request_for, door, client):
    (artifact,) = place.train([request_for(epochs=1)], door())
    shutil.rmtree(artifact.folder)
    place.train([request_for(epochs=1)], door("again"))
    trainings, _ = runs(client)
    assert [run.info.status for run in trainings] == ["FINISHED", "FINISHED"]
    assert len({run.info.run_id for run in trainings}) == 2


def test_a_store_of_the_users_own_is_written_to_instead(place, request_for, door, client, empty, tmp_path, monkeypatch):
    shutil.move(place.outputs / "mlflow.db", tmp_path / "theirs.db")
    uri = f"sqlite:///{tmp_path / 'theirs.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (artifact,) = place.train([request_for(epochs=1)], door())
    (run,), _ = runs(type(client)(uri))
    assert run.data.tags["fingerprint"] == artifact.fingerprint
    assert not (place.outputs / "mlflow.db").exists()


def test_a_store_that_cannot_be_written_stops_no_training(place, request_for, door, client, caplog):
    (place.outputs / "mlflow.db").write_bytes(b"no database")
    (artifact,) = place.train([request_for()], door())
    assert artifact.finished
    (warned,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert warned.startswith("tracker=mlflow failed (") and "tracking stops" in warned


@pytest.mark.slow
def test_commands_that_start_at_once_on_no_store_make_one(place, tmp_path):
    place.outputs.mkdir()
    code = (
        "import sys; from pathlib import Path; from kdrun.tracking import mlflow; from kdrun.tracking.base import *; "
        "outputs = Path(sys.argv[1]); mlflow.start(Command('distill', 'kdrun', outputs, outputs))._experiment('digits')"
    )
    words = [sys.executable, "-c", code, str(place.outputs)]
    started = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [("", 0)] * 3


def test_nothing_is_written_but_the_store_and_nobody_is_called(place, request_for, door, client, tmp_path):
    from mlflow.telemetry.utils import is_telemetry_disabled

    with listening():
        place.train([request_for(epochs=1)], door())
    assert CALLS == []  # the import and the first opening included
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true" and is_telemetry_disabled()
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    assert {path.name for path in place.outputs.iterdir()} == {"store", "mlflow.db"}
