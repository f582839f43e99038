"""What a tracker is told, and that whatever it does stops no training."""

import dataclasses
import sys

import pytest

from kdrun import checks, config
from kdrun.tracking.base import Tracking, tracking
from tests.tracking.conftest import STEPS, history, same, weights, without_time
from tests.training.conftest import CE, STUDENT, TEACHER

DML = {"use": "dml.DML", "weight": 1.0, "T": 1.0, "heard": {"teachers": [0], "weights": [1.0]}}


class Recorder:
    """Remembers all that it is told, and raises in the methods it is made for."""

    view_command = "a look"

    def __init__(self, *broken):
        self.broken, self.told = broken, []
        self._raise("start")

    def begin(self, training):
        self.told.append(("begin", training.label, training.resumed))
        self._raise("begin")

    def epoch(self, training, row):
        self.told.append(("epoch", training.label, dict(row)))
        self._raise("epoch")

    def end(self, training, result):
        self.told.append(("end", training.label, result["status"], result["reason"]))
        self._raise("end")

    def close(self):
        self.told.append(("close",))
        self._raise("close")

    def about(self, label):
        return [sentence for sentence in self.told if sentence[1:2] == (label,)]

    def _raise(self, method):
        if method in self.broken:
            raise OSError(f"{method}: the tracker is gone")


@pytest.fixture
def recorded():
    """A door with a recorder behind it."""
    recorder = Recorder()
    return recorder, Tracking("recorder", lambda: recorder)


def test_every_epoch_is_told_once_as_history_csv_has_it(place, request_for, recorded):
    recorder, door = recorded
    (artifact,) = place.train([request_for()], door)
    begin, *rows, end = recorder.about("baseline net seed 0")
    assert begin == ("begin", "baseline net seed 0", False)
    assert [row for _, _, row in rows] == history(artifact)
    assert [row["epoch"] for _, _, row in rows] == [1, 2, 3]
    assert end == ("end", "baseline net seed 0", "done", None)
    assert recorder.told[-1] == ("close",)


def test_each_learner_of_a_cohort_is_a_training_of_its_own(place, request_for, recorded):
    recorder, door = recorded
    hot = dataclasses.replace(request_for(lr=0.2, epochs=2), name="hot")
    cold, warm = place.train([request_for(), hot], door)
    for label, artifact, epochs in (("baseline net seed 0", cold, 3), ("hot seed 0", warm, 2)):
        begin, *rows, end = recorder.about(label)
        assert (begin[0], end[0]) == ("begin", "end")
        assert [row for _, _, row in rows] == history(artifact)
        assert len(rows) == epochs
    assert recorder.told.count(("close",)) == 1


def test_peers_are_trainings_of_their_own(place, request_for, recorded):
    recorder, door = recorded
    alone = [request_for("peer", model, {"ce": CE, "dml": DML}) for model in (STUDENT, TEACHER)]
    others = [({"model": dict(r.spec.model), "recipe": dict(r.spec.recipe)},) for r in reversed(alone)]
    peers = [
        dataclasses.replace(r, spec=dataclasses.replace(r.spec, peers=beside), name=f"peer {i}")
        for i, (r, beside) in enumerate(zip(alone, others, strict=True))
    ]
    for i, artifact in enumerate(place.train(peers, door)):
        _, *rows, end = recorder.about(f"peer {i} seed 0")
        assert [row for _, _, row in rows] == history(artifact)
        assert len(rows) == 3 and end[2] == "done"


def test_what_the_store_has_is_not_tracked_again(place, request_for, recorded):
    recorder, door = recorded
    place.train([request_for()])
    place.train([request_for()], door)
    assert recorder.told == []


def test_a_resumed_training_tells_its_earlier_epochs_too_and_none_twice(place, request_for):
    first, second = Recorder(), Recorder()
    place.train([request_for()], Tracking("first", lambda: first), batches=STEPS + 2)
    begin, row, closed = first.told
    assert (begin[0], row[0], row[2]["epoch"], closed) == ("begin", "epoch", 1, ("close",))
    (artifact,) = place.train([request_for()], Tracking("second", lambda: second))
    begin, *rows, end = second.about("baseline net seed 0")
    assert begin[2] is True and end[2] == "done"
    assert [r for _, _, r in rows] == history(artifact)
    assert rows[0][2] == row[2]


def test_a_training_that_diverges_ends_with_the_reason(place, request_for, recorded):
    recorder, door = recorded
    lost, kept = place.train([dataclasses.replace(request_for(lr=1e30), name="wild"), request_for()], door)
    _, end = recorder.about("wild seed 0")
    assert end == ("end", "wild seed 0", "diverged", lost.result["reason"])
    assert recorder.about("baseline net seed 0")[-1][2] == "done" == kept.result["status"]


@pytest.mark.parametrize("broken", ["start", "begin", "epoch", "end", "close", ("begin", "close"), ("end", "close")])
def test_a_tracker_that_raises_stops_no_training_changes_no_number_and_is_heard_once(
    place, request_for, tmp_path, caplog, broken
):
    caplog.set_level("INFO")
    made = []

    def start():
        made.append(Recorder(*[broken] if isinstance(broken, str) else broken))
        return made[-1]

    door = Tracking("broken", start)
    wanted = [request_for(), request_for(seed=1)]  # two cohorts
    artifacts = place.train(wanted, door)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    first = broken if isinstance(broken, str) else broken[0]
    failed = f"tracker=broken failed (OSError: {first}: the tracker is gone): tracking stops, training continues"
    assert warned == [failed]
    assert not any(
        sentence[1] == "baseline net seed 1" for recorder in made for sentence in recorder.told if sentence[1:]
    )
    untracked = type(place)(tmp_path / "untracked").train(wanted)
    for a, b in zip(artifacts, untracked, strict=True):
        assert same(weights(a), weights(b))
        assert without_time(history(a)) == without_time(history(b))
        assert a.result["selected"] == b.result["selected"]


def test_settings_are_flat_and_hold_all_that_determines_the_result(place, request_for):
    seen = {}

    class Keeper(Recorder):
        def begin(self, training):
            seen.update(training.settings())

    request = dataclasses.replace(request_for(epochs=1, milestones=[1, 2]), notes={"T": 4.0, "alpha": 0.9})
    place.train([request], Tracking("keeper", Keeper))
    assert (seen["T"], seen["recipe.lr"], seen["recipe.epochs"], seen["seed"]) == (4.0, 0.1, 1, 0)
    assert (seen["role"], seen["dataset"], seen["model"]) == ("baseline", "digits", "net")
    assert (seen["recipe.milestones"], seen["recipe.clip_norm"]) == ("[1,2]", "null")
    assert (seen["objective.ce.use"], seen["data.flip"]) == ("ce.CE", True)
    assert all(isinstance(value, bool | int | float | str) for value in seen.values())


def problems(**settings):
    return config.Root(outputs="outputs", **settings).problems()


def test_a_tracker_that_does_not_exist_is_refused_with_those_that_do():
    assert problems(tracker="nope") == ["tracker=nope: choose auto, none, mlflow, tensorboard, wandb"]
    assert problems(tracker="none") == []


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not there
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    needs = "tracker=mlflow: needs mlflow, which is not installed; type pip install 'kdrun[mlflow]'"
    assert problems(tracker="mlflow") == [needs]
    assert problems(tracker="auto") == []


def test_a_folder_is_not_taken_for_the_package_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "a_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not checks.installed("a_tracker")
    (tmp_path / "a_tracker" / "__init__.py").touch()
    assert checks.installed("a_tracker")


@pytest.mark.parametrize(("there", "name"), [(True, "tensorboard"), (False, "none")])
def test_auto_is_tensorboard_where_it_is_installed(place, monkeypatch, there, name):
    monkeypatch.setattr(checks, "installed", lambda package: there and package == "tensorboard")
    assert tracking("auto", place.command()).name == name
    assert tracking("none", place.command()).name == "none"


def test_a_tracker_is_imported_no_earlier_than_an_epoch_has_ended(place, request_for, monkeypatch):
    monkeypatch.setitem(sys.modules, "kdrun.tracking.tensorboard", None)  # to import it now raises
    door = tracking("tensorboard", place.command())
    place.train([request_for()], door, batches=STEPS - 1)
    assert not door._off
    place.train([request_for()], door)
    assert door._off


@pytest.mark.parametrize("tracker", config.TRACKERS)
def test_every_tracker_is_named_as_the_extra_that_installs_it(tracker):
    import tomllib

    project = tomllib.loads((config.CONF.parent / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"][tracker]
    assert any(requirement.startswith(tracker) for requirement in wanted)
