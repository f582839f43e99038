"""Results that are removed while a command runs, and folders whose names look like something else."""

import shutil

import pytest

from tests.faults.conftest import SMALL, Desk

LONG = [*SMALL, "recipe.epochs=120"]  # a second or two, so that a busy test still comes before its end


def test_removed_results_are_never_called_intact(taught):
    command = taught.start("distill", *LONG)
    command.until("student mlp seed 0, epoch 2/120")
    gone = taught.outputs.rename(taught.folder / "gone")  # at once: it writes all the while
    shutil.rmtree(gone)
    assert command.wait() == 3
    sentence = command.output()
    assert "intact" not in sentence and "Traceback" not in sentence
    assert "was removed while it was trained: it is created again" in sentence
    assert sentence.rstrip().endswith("the same command retrains it and reuses the rest")
    again = taught.type("distill", *LONG)
    assert again.count(": found ") == 2 and again.count(": training ") == 1  # the teacher


def test_a_folder_that_a_file_replaced_is_said_to_be_gone(taught):
    command = taught.start("distill", *LONG)
    command.until("student mlp seed 0, epoch 2/120")
    taught.outputs.rename(taught.folder / "elsewhere")
    taught.outputs.write_text("a file")
    assert command.wait() == 3
    sentence = command.output()
    assert "intact" not in sentence and "Traceback" not in sentence
    assert "Not a directory" in sentence and "what was saved there is lost" in sentence


@pytest.mark.parametrize("name", ["${T}", "a=b,c [d] 'e' \"f\" {g} ${nope}"])
def test_a_working_folder_may_have_any_name(finished, tmp_path, name):
    desk = Desk(tmp_path / name)
    shutil.copytree(finished.outputs / "store", desk.outputs / "store")
    assert ": training" not in desk.type("distill", *SMALL)
    names = {path.name for path in desk.latest.iterdir()}
    assert {"kdrun.log", ".hydra", "comparison.md", "run.json"} <= names
    assert [path.name for path in tmp_path.iterdir()] == [name]
    before = sorted(desk.folder.rglob("*"))
    desk.type("distill", *SMALL, "plan=true")
    left = [path for path in sorted(desk.folder.rglob("*")) if path not in before]
    assert [path.name for path in left] == ["said-2.txt"]
