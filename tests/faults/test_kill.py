"""Killed at any moment, the same command ends where an uninterrupted one does, bit for bit."""

import re

import pytest

from kdrun.results.overview import list_runs
from kdrun.results.runs import all_runs
from tests.faults.conftest import SMALL, Desk

STEPS = 5  # batches per epoch
EPOCHS = 3


def resumed_and_equal(desk, finished, fault):
    """Kill the small job at a place, type it again, and compare; give what the second said."""
    desk.type("distill", *SMALL, code=-9, KDRUN_FAULT=fault)
    output = desk.type("distill", *SMALL)
    assert desk.results() == finished.results()
    for entry in desk.results().values():
        assert [row[0] for row in entry["history"][1:]] in (["1"], ["1", "2", "3"])  # no epoch twice
    assert not list(desk.outputs.glob("store/*/checkpoint"))
    assert not list(desk.outputs.glob("store/**/.*.tmp"))
    return output


def some(cases, quick):
    """Mark as slow what is not in `quick`."""
    return [pytest.param(*c, marks=() if c in quick else pytest.mark.slow) for c in cases]


@pytest.mark.parametrize("batch", some([(n,) for n in range(1, EPOCHS * STEPS + 1)], quick=[(1,), (5,), (8,), (15,)]))
def test_a_kill_after_any_batch_loses_at_most_one_epoch_and_no_bit(taught, finished, batch):
    output = resumed_and_equal(taught, finished, f"after_batch:{batch}:kill")
    whole = (batch - 1) // STEPS  # the epoch's checkpoint is written after its last batch was counted
    matches = re.findall(r"resuming after epoch (\d), batch 0", output)
    assert matches == [str(whole)] * 2 if whole else not matches


# Writes of the small job: 1 run.json; 2, 3 specs; 4, 5 checkpoints after epoch 1; 6, 7 after 2; 8, 9 after 3;
# then per artifact spec, history, weights, logits, result; then run.json and the comparison.
WRITES = [(s, n) for s in ("in_write", "before_rename", "after_rename") for n in (2, 4, 5, 7, 8, 12, 14, 17, 19, 20)]
QUICK = [("in_write", 5), ("in_write", 12), ("before_rename", 4), ("before_rename", 14), ("after_rename", 8)]


@pytest.mark.parametrize(("site", "write"), some(WRITES, quick=[*QUICK, ("after_rename", 14)]))
def test_a_kill_in_any_write_leaves_something_to_resume_from(taught, finished, site, write):
    resumed_and_equal(taught, finished, f"{site}:{write}:kill")


@pytest.mark.parametrize("artifact", [1, 2])
def test_a_kill_before_a_result_is_recorded_leaves_no_result(taught, finished, artifact):
    taught.type("distill", *SMALL, code=-9, KDRUN_FAULT=f"before_result:{artifact}:kill")
    assert len(list(taught.outputs.glob("store/*/result.json"))) == artifact  # the teacher's, and those before
    taught.type("distill", *SMALL)
    assert taught.results() == finished.results()


def test_killed_again_and_again_it_still_ends_the_same(taught, finished):
    for fault in ("after_batch:7:kill", "in_write:5:kill", "after_batch:3:kill", "before_result:2:kill"):
        taught.type("distill", *SMALL, code=-9, KDRUN_FAULT=fault)
    taught.type("distill", *SMALL)
    assert taught.results() == finished.results()


def test_a_teacher_is_resumed_as_well(desk, finished):
    desk.type("distill", *SMALL, code=-9, KDRUN_FAULT="after_batch:2:kill")
    desk.type("distill", *SMALL)
    assert desk.results() == finished.results()


def test_what_was_killed_is_listed_as_stopped_with_what_it_had_still_to_do(desk):
    desk.type("distill", *SMALL, code=-9, KDRUN_FAULT="after_batch:2:kill")
    desk.type("distill", "-m", *SMALL, "T=1,2", code=-9, KDRUN_FAULT="after_batch:2:kill")
    first, second, alone = all_runs(desk.outputs)
    assert [run.status for run in (first, second, alone)] == ["not started", "not started", "stopped"]
    assert alone.reason == "its process is no longer running; the same command resumes"
    text = list_runs(desk.outputs).to_text()
    assert "0 of 2" in text and "stopped" in text and " running " not in text


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_that_streams_its_images_from_files_resumes_bit_for_bit(tmp_path, workers):
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 4)):
        for name in ("a", "b"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    words = [
        "train", "baseline", "dataset=folder", f"dataset.root={tmp_path / 'images'}", "dataset.max_resident_gb=0",
        "dataset.crop_padding=1", "dataset.flip=true", "student=mlp", "student.hidden=[8]", "student.dropout=0.2",
        "seeds=1", "recipe.epochs=3", "recipe.warmup_epochs=0", "recipe.batch_size=16", f"workers={workers}",
    ]  # fmt: skip
    whole, killed = Desk(tmp_path / "whole"), Desk(tmp_path / "killed")
    whole.type(*words)
    killed.type(*words, code=-9, KDRUN_FAULT="after_batch:8:kill")
    killed.type(*words, code=75, KDRUN_FAULT="after_batch:2:term")
    assert "resuming after epoch 1, batch 2" in killed.type(*words)
    assert killed.results() == whole.results()
