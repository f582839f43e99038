"""kdrun store: what is there, what it cost, what is damaged, and what nothing refers to."""

import json
import shutil
from pathlib import Path

import pytest

from kdrun import process, sealed
from kdrun.store import Store
from kdrun.verbs import store as verb
from tests.cli.conftest import Desk


@pytest.fixture(scope="module")
def stocked(trained):
    """The main job's folder, with a teacher whose run was removed."""
    trained.runs("train", "teacher", "teacher.recipe.epochs=1", "teacher.seed=1", "device=cpu")
    shutil.rmtree(trained.folder / "outputs" / "runs" / "train_teacher")
    return trained


@pytest.fixture
def desk(stocked, tmp_path, monkeypatch):
    """A copy of it, to change."""
    shutil.copytree(stocked.folder / "outputs", tmp_path / "outputs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Desk(tmp_path)


@pytest.fixture
def typed(capsys):
    """Return a function that runs `kdrun store` in this process and returns its exit code and what it printed."""

    def type_(*words):
        code = verb.main(words)
        out = capsys.readouterr()
        return code, out.out + out.err

    return type_


def folder(role):
    return next(Path("outputs/store").glob(f"{role}-*"))


def orphan():
    """The teacher that nothing refers to."""
    (mine,) = (p.parent for p in Path("outputs/store").glob("*/spec.json") if json.loads(p.read_text())["seed"] == 1)
    return mine


def test_the_list_is_a_table_in_which_no_number_is_broken_and_the_newest_is_last(desk):
    lines = desk.runs("store", "list", COLUMNS="80").splitlines()
    assert lines[0].startswith("4 trainings in outputs/store: 4 done; ") and " of training" in lines[0]
    assert max(map(len, lines)) <= 80
    for place in Path("outputs/store").glob("*-*"):
        result = json.loads((place / "result.json").read_text())
        (row,) = (line for line in lines if line.startswith(result["fingerprint"]))
        assert f"{100 * result['selected']['test']['accuracy']:.2f}" in row and row.endswith("kB") and " done 20" in row
    assert orphan().name[-12:] in next(line for line in reversed(lines) if line[:12].isalnum())


def test_some_are_listed_alone_and_wrong_words_are_refused_with_what_exists(desk, typed):
    _, sentence = typed("list", "role=teacher", "dataset=digits")
    assert sentence.startswith("2 trainings") and "student digits" not in sentence
    _, sentence = typed("list", "-n", "1", "outputs=outputs")
    assert sentence.startswith("1 training") and orphan().name[-12:] in sentence
    assert typed("list", "outputs=elsewhere")[1].startswith("there are no trainings in elsewhere/store yet")
    for words, reason in {
        (): "store: do what? Type kdrun store list | show | verify | prune",
        ("verfy",): "Did you mean verify?",
        ("list", "colour=red"): "filters are role=…, dataset=…, model=…, state=…, and -n N",
        ("list", "role=tutor"): "role is one of baseline, student, teacher",
        ("list", "-n", "0"): "must be at least 1",
        ("show",): "one fingerprint",
        ("show", "zzz"): "no training whose fingerprint begins like this; the newest is",
        ("prune", "3f9c"): "takes no fingerprints",
        ("verify", "--yes"): "works only with kdrun store prune",
    }.items():
        with pytest.raises(ValueError, match=r"^(store|zzz)") as refused:
            verb.main(words)
        assert reason in str(refused.value)


def test_show_tells_result_cost_spec_and_what_refers_to_it(desk, typed):
    teacher = next(p for p in Path("outputs/store").glob("teacher-*") if p != orphan())
    _, sentence = typed("show", teacher.name[-12:-6])
    assert "teacher digits digits_teacher" in sentence and "for 1 epoch, " in sentence and "kdrun distill" in sentence
    assert "recipe.lr" in sentence and "run      runs/distill/" in sentence
    assert f"student  {folder('student').name[-12:]}, which learned from it" in sentence
    assert "no run, sweep or network" in typed("show", orphan().name[-12:])[1]
    twin = teacher.with_name(f"baseline-digits-mlp-{teacher.name[-12:-1]}{'0' if teacher.name[-1] != '0' else '1'}")
    twin.mkdir()
    with pytest.raises(ValueError, match="2 trainings begin like this: "):
        typed("show", teacher.name[-12:-1])
    (teacher / "result.json").write_text("[]")
    assert "damaged: result.json: " in typed("show", teacher.name[-12:])[1]


def test_verify_names_what_is_damaged_unfinished_and_left_over(desk, typed):
    code, output = typed("verify")
    assert code == 0 and "4 trainings match their checksums" in output
    weights = folder("student") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (folder("baseline") / "result.json").write_text("{}")
    (orphan() / "result.json").unlink()
    teacher = next(p for p in Path("outputs/store").glob("teacher-*") if p != orphan())
    (teacher / ".history.csv.1.tmp").write_text("left")
    shutil.copytree(teacher, teacher.with_name(teacher.name + ".corrupt.2"))
    done = desk.type("store", "verify", COLUMNS="200")
    output = " ".join(done.stdout.split())
    assert done.returncode == 3 and "1 trainings match" in output
    assert f"{folder('student').name} damaged model.safetensors: type its command again: kdrun distill" in output
    assert f"{folder('baseline').name} damaged " in output and f"{orphan().name} unfinished the command" in output
    assert f"{teacher.name} left by a killed command .history.csv.1.tmp: kdrun store prune removes it" in output
    assert f"{teacher.name}.corrupt.2 set aside as damaged" in output
    assert typed("verify", teacher.name[-12:])[0] == 0


def test_prune_removes_what_nothing_refers_to_and_only_if_asked_or_told(desk, typed, monkeypatch):
    teacher = next(p for p in Path("outputs/store").glob("teacher-*") if p != orphan())
    corrupt, mine = teacher.with_name(teacher.name + ".corrupt"), orphan()
    shutil.copytree(teacher, corrupt)
    (teacher / "checkpoint").mkdir()
    unfinished = teacher.with_name("student-digits-mlp-000000000000")
    unfinished.mkdir()
    before = desk.listing()
    done = desk.type("store", "prune")
    assert done.returncode == 2 and "type kdrun store prune --yes" in done.stderr and desk.listing() == before
    assert all(f"{p.name} " in done.stdout for p in (corrupt, mine, unfinished)) and "would be removed" in done.stdout
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin.isatty", lambda: True)
        patch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        patch.setattr("builtins.input", lambda question: "")
        assert typed("prune")[1].endswith("nothing was removed\n") and desk.listing() == before
        patch.setattr("builtins.input", lambda question: "y")
        with Store(Path("outputs/store")).locked(mine.name[-12:], None):
            code, sentence = typed("prune")
        assert code == 3 and f"kdrun: kept: {mine.name} is in use: process " in sentence and mine.exists()
    assert not corrupt.exists() and not unfinished.exists() and not (teacher / "checkpoint").exists()
    assert typed("prune", "--yes")[0] == 0 and not mine.exists()
    assert "3 trainings match" in typed("verify")[1]
    assert "nothing to remove" in typed("prune")[1]


def test_prune_refuses_where_it_cannot_know_what_is_referred_to(desk, typed):
    (record,) = Path("outputs/runs/distill").glob("*/run.json")
    text = record.read_text()
    planning = {"status": "running", "wanted": [], "process": process.this()}
    unread, running = "; these cannot be read, .*runs/distill/", ", since .*runs/distill/.* is running"
    for content, reason in (
        (text[:-9].encode(), unread), (b"[]", unread), (sealed.seal(json.loads(text) | planning), running),
    ):  # fmt: skip
        record.write_bytes(content)
        with pytest.raises(ValueError, match=f"nothing was removed{reason}"):
            typed("prune", "--yes")
    # a run of an older version, which did not record what it needs: nothing that it may go on with goes
    old = {k: v for k, v in json.loads(text).items() if k not in ("wanted", "schema", "checksum")}
    old |= {"status": "interrupted", "artifacts": []}
    record.write_text(json.dumps(old))
    (record.parent / "comparison.json").unlink()
    typed("prune", "--yes")
    assert len(list(Path("outputs/store").glob("*-*"))) == 3
    shutil.rmtree(record.parent)
    typed("prune", "--yes")
    assert not list(Path("outputs/store").glob("*-*"))
