"""Files that are read back: a damaged one is never believed, whatever was changed in it."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from kdrun import sealed
from kdrun.artifact import Damaged, Unreadable, read_result
from kdrun.records import ComparisonJson, ResultJson, RunJson, SweepJson
from kdrun.results.runs import listed, read_run, read_sweep
from kdrun.store import Store
from tests.cli.conftest import Desk

BEFORE = Path(__file__).parents[1] / "before" / "unsealed.zip"  # of before files were sealed
RUN, SWEEP = "2026-11-26_20-40-37-abe0df", "2026-11-26_20-40-47-d95325"
PRINT = "ca573c45b2aa"
STUDENT = f"student-digits-mlp-{PRINT}"
NAN = float("nan")
FILES = {
    ResultJson: f"store/{STUDENT}/result.json", SweepJson: f"sweeps/distill/{SWEEP}/sweep.json",
    RunJson: f"runs/distill/{RUN}/run.json", ComparisonJson: f"runs/distill/{RUN}/comparison.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    with zipfile.ZipFile(BEFORE) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def outputs(kept, tmp_path):
    """An outputs folder of before files were sealed."""
    return shutil.copytree(kept, tmp_path / "outputs")


@pytest.fixture
def desk(outputs):
    """That folder, to type commands at."""
    return Desk(outputs.parent)


def changed(file, place, value):
    """Change one value of a file and nothing else; `...` removes the key."""
    whole = inner = json.loads(file.read_text())
    *path, last = place.split(".")
    for key in path:
        inner = inner[int(key) if key.isdigit() else key]
    if value is ...:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value
    file.write_text(json.dumps(whole))


def resealed(file):
    """Seal a file of before, as if it were written today."""
    file.write_bytes(sealed.seal(json.loads(file.read_text())))


@pytest.mark.parametrize("record", [ResultJson, RunJson, SweepJson, ComparisonJson], ids=lambda record: record.__name__)
def test_any_value_of_a_sealed_file_that_is_changed_is_seen(outputs, record):
    file = outputs / FILES[record]
    resealed(file)
    whole = json.loads(file.read_text())
    assert sealed.read(file, record) == {key: value for key, value in whole.items() if key != "checksum"}
    text = file.read_text()
    for key in ("schema", "checksum"):
        file.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(ValueError, match="does not match its checksum"):
            sealed.read(file, record)
    numbers = [at for at, mark in enumerate(text) if mark.isdigit()]
    for at in numbers[:: len(numbers) // 60 + 1]:
        other = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
        file.write_text(other)
        if sum(one.isdigit() for one in text[at - 16 : at]) > 14:
            continue  # a digit beyond those that a float holds
        with pytest.raises(ValueError, match=r"checksum|later kdrun|Expecting|Extra data"):
            sealed.read(file, record)


CHANGES = [  # of a result.json without a seal
    ("selected.test.accuracy", 0.95), ("selected.val.accuracy", 0.95), ("selected.test.nll", 0.1),
    ("selected.epoch", 5), ("selected.test.accuracy", NAN), ("selected.test.accuracy", "0.95"),
    ("selected.test.accuracy", -0.5), ("selected.train.accuracy", 2.0), ("selected.train.accuracy", True),
    ("selected.test", None), ("selected.test", [1]), ("selected.test", ...), ("selected", None), ("selected", ...),
    ("selected", []), ("last.test.accuracy", 0.95), ("last", None), ("last.epoch", 3),
    ("best_test", {"epoch": 1, "test": {"accuracy": 0.9, "nll": 0.1}}), ("checksums", None), ("checksums", []),
    ("checksums", ...), ("fingerprint", "0" * 12), ("fingerprint", ...), ("fingerprint", 3), ("seed", 7),
    ("seed", "0"), ("status", "diverged"), ("status", None), ("classes", ["0", "1"]), ("classes", None),
    ("classes", [1]), ("versions", []), ("epochs", 99), ("seconds", 1e5), ("seconds", -1),
    ("seconds", float("inf")), ("images_per_second", 1.0), ("train_images", 10), ("bytes", 10),
    ("parameters", "many"), ("parameters", 1e3), ("teachers", []), ("protocol", "paper"), ("data", "x"),
    ("precision", "bf16"), ("select", "balanced"), ("ema_decay", 0.9), ("compiled", True), ("threads", None),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), CHANGES, ids=lambda value: str(value)[:24])
def test_a_result_without_a_seal_is_believed_as_far_as_the_other_files_bear_it_out(outputs, place, value):
    folder = outputs / "store" / STUDENT
    assert read_result(folder)["selected"]["test"]["accuracy"] < 0.2
    changed(folder / "result.json", place, value)
    for reading in (lambda: read_result(folder), lambda: Store(outputs / "store").find(PRINT)):
        with pytest.raises(Damaged, match=r"damaged \((result|spec)\.json"):
            reading()


def test_to_remove_the_seal_and_the_checksums_of_files_is_no_way_around(outputs):
    folder, store = outputs / "store" / STUDENT, Store(outputs / "store")
    resealed(folder / "result.json")
    assert store.find(PRINT).finished
    other = next(outputs.glob("store/teacher-*"))
    shutil.copy(other / "logits.safetensors", folder)
    with pytest.raises(Damaged, match=r"logits\.safetensors"):
        store.find(PRINT)
    whole = json.loads((folder / "result.json").read_text())
    sums = {name: sha for name, sha in whole["checksums"].items() if name != "logits.safetensors"}
    bare = {key: value for key, value in whole.items() if key not in ("schema", "checksum")}
    for less in ({**bare, "checksum": "0"}, {**bare, "schema": 2}, bare, {**bare, "checksums": sums},
                 {**bare, "checksums": {}}, {**bare, "checksums": {**sums, "../x": "0"}}):  # fmt: skip
        (folder / "result.json").write_text(json.dumps(less))
        with pytest.raises(Damaged):
            store.find(PRINT)


def test_the_files_of_another_training_are_not_taken_for_this_one(outputs):
    folder, other = outputs / "store" / STUDENT, next(outputs.glob("store/teacher-*"))
    for name in ("result.json", "spec.json"):
        resealed(folder / "result.json")
        before = (folder / name).read_bytes()
        shutil.copy(other / name, folder)
        if name == "spec.json":  # even where its checksum fits
            sums = json.loads((folder / "result.json").read_text())["checksums"]
            their = json.loads((other / "result.json").read_text())["checksums"]["spec.json"]
            changed(folder / "result.json", "checksums", sums | {"spec.json": their})
            resealed(folder / "result.json")
        with pytest.raises(Damaged, match="another training"):
            Store(outputs / "store").find(PRINT)
        (folder / name).write_bytes(before)


RUN_CHANGES = [
    ("artifacts", ...), ("artifacts", None), ("artifacts", [1]), ("artifacts.0.folder", "../../x"),
    ("artifacts.0.fingerprint", "*"), ("artifacts.0.seed", ...), ("status", 3), ("config", ...), ("config", []),
    ("config.dataset", "x"), ("config.transfer", 7), ("overrides", "x"), ("choices", None), ("process.pid", -4),
    ("process", 3), ("verb", None), ("config.reported", [{"x": 1}]),
]  # fmt: skip
COMPARISON_CHANGES = [
    ("rows.2.test_accuracy.mean", 0.95), ("rows.2.val_nll.std", 3.0), ("paired.mean", 0.775), ("paired.p", 0.001),
    ("lanes.0.paired.mean", 0.775), ("lanes.0.paired", None), ("rows", {}), ("rows.1", 3), ("rows.1.points", []),
    ("rows.2.points.0.selected.test.accuracy", 1.0), ("rows.1.n", 9), ("rows.1.points.0.folder", "../x"),
    ("table", 3), ("table.columns", "x"), ("table.rows.0", []), ("table.rows.0", {}),
    ("rows.0.role", None), ("verdict", 5),
]  # fmt: skip
SWEEP_CHANGES = [
    ("cells", ...), ("cells", None), ("cells.0", {}), ("cells.0.number", -1), ("cells.0.number", "0"),
    ("cells.0.overrides", [1]), ("created", ...), ("overrides", None), ("status", []), ("process", {}),
    ("cells", []), ("cells.0.number", 1),
]  # fmt: skip


def test_runs_and_sweeps_without_a_seal_are_held_to_their_types_and_to_their_own_numbers(outputs):
    run, sweep = outputs / "runs" / "distill" / RUN, outputs / "sweeps" / "distill" / SWEEP
    assert read_run(run).problem is None and len(read_sweep(sweep)[1]) == 2
    for file, changes in ((run / "run.json", RUN_CHANGES), (run / "comparison.json", COMPARISON_CHANGES),
                          (sweep / "sweep.json", SWEEP_CHANGES)):  # fmt: skip
        before = file.read_bytes()
        for place, value in changes:
            changed(file, place, value)
            shown = listed(sweep)[-1] if file.name == "sweep.json" else read_run(run)
            assert shown.state.startswith(f"unreadable: {file.name} is damaged ("), (place, value, shown.state)
            file.write_bytes(before)


NO_RECORDS = ["", "{", "[]", "3", "null", "[" * 100_000, "\0", '{"a": 1e999}', '{"schema": 2}', "\ud800"]


@pytest.mark.parametrize("text", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_what_is_no_record_is_refused_with_a_reason(tmp_path, text):
    file = tmp_path / "run.json"
    file.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=r"."):
        sealed.read(file, RunJson)
    assert read_run(tmp_path).state.startswith("unreadable: run.json is damaged (")


def test_what_a_later_kdrun_wrote_is_not_read_and_not_taken_for_damage(outputs):
    for file in FILES.values():
        whole = json.loads((outputs / file).read_text())
        (outputs / file).write_text(json.dumps(whole | {"schema": 9, "checksum": "of its own kind"}))
    later = "a later kdrun wrote it, in schema 9; this one reads up to 2"
    assert read_run(outputs / "runs/distill" / RUN).state == f"unreadable: run.json: {later}"
    assert listed(outputs / "sweeps/distill" / SWEEP)[-1].state == f"unreadable: sweep.json: {later}"
    with pytest.raises(Unreadable, match=later) as refused:
        Store(outputs / "store").find(PRINT)
    assert not isinstance(refused.value, Damaged)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(outputs):
    for file in FILES.values():
        (outputs / file).unlink()
        os.mkfifo(outputs / file)
    assert "not a regular file" in read_run(outputs / "runs/distill" / RUN).state
    assert "not a regular file" in listed(outputs / "sweeps/distill" / SWEEP)[-1].state
    with pytest.raises(Damaged, match="not a regular file"):
        Store(outputs / "store").find(PRINT)


def test_a_changed_accuracy_is_named_by_every_command_that_would_show_it(desk):
    """Also in a run whose other networks are whole, which are shown; only a training sets the folder aside."""
    folder = desk.folder / "outputs" / "store" / STUDENT
    changed(folder / "result.json", "selected.test.accuracy", 0.95)
    why = "result.json: its selected.test does not match the other files"
    output = " ".join(desk.runs("report", RUN).split())
    assert f"unreadable: the artifact {STUDENT} is damaged ({why}); nothing was moved." in output and "-16.39" in output
    desk.write("digit.png")
    for words in (["evaluate", RUN, "device=cpu"], ["predict", RUN, "digit.png"]):
        done = desk.type(*words)
        output = done.stdout + done.stderr
        assert done.returncode == 3 and "Traceback" not in output and folder.is_dir(), output
        assert f"the artifact {STUDENT} is damaged ({why})" in " ".join(output.split())
        if words[0] == "evaluate":
            assert f"{PRINT}  unreadable: result.json" in output and output.count("+0.00") == 4
