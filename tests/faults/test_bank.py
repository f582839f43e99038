"""A bank that several commands fill, and one is killed over: nothing is lost, and no teacher runs in vain."""

import json
import os
import re

from tests import warm
from tests.faults.conftest import SMALL

VIEWS = ["augment.views=4", "augment=[crop_flip,mixup]", "report=false", "tracker=none"]
COMPUTED = r"teacher logits: ([\d,]+) of ([\d,]+) were computed"


def computed(output):
    """Return how many logits the teacher computed, and how many its students read, in each training."""
    return [(int(a.replace(",", "")), int(b.replace(",", ""))) for a, b in re.findall(COMPUTED, output)]


def test_commands_that_fill_a_bank_side_by_side_leave_the_next_one_nothing_to_compute(taught):
    (teacher,) = taught.outputs.glob("store/teacher-*")
    beside = [taught.start("distill", *SMALL, *VIEWS, f"seed={seed}", KDRUN_FAULT=fault)
              for seed, fault in ((0, "in_bank:1:kill"), (1, "none:1:kill"))]  # fmt: skip
    assert [command.wait() for command in beside] == [-9, 0], [command.output() for command in beside]
    (of_one,) = computed(beside[1].output())
    both = computed(taught.type("distill", *SMALL, *VIEWS, "seeds=2", "T=2"))
    assert 0 < both[0][0] < both[0][1] and both[1] == (0, of_one[1])
    (bank,) = (teacher / "banks").iterdir()  # and nothing that the kill left
    assert bank.stat().st_mode == (teacher / "spec.json").stat().st_mode
    again = taught.type("distill", *SMALL, *VIEWS, "seeds=2", "T=3")
    assert computed(again) == [(0, of_one[1])] * 2
    assert " from the bank of teacher digits_teacher " in again

    taught.outputs.joinpath("runs").rename(taught.folder / "elsewhere")  # so that nothing refers to anything
    fingerprint = json.loads((teacher / "result.json").read_text())["fingerprint"]
    shown = " ".join(warm.type_(taught.folder, "store", "show", fingerprint).stdout.split())
    assert re.search(r"bank [\d.]+ kB: the logits for 4 views of \d+ images, [\d,]+ of [\d,]+ known; by torch", shown)
    assert warm.type_(taught.folder, "store", "verify").returncode == 0
    os.truncate(bank, bank.stat().st_size - 1)
    damaged = warm.type_(taught.folder, "store", "verify")
    assert damaged.returncode == 3 and "damaged bank" in damaged.stdout
    assert warm.type_(taught.folder, "store", "prune", "--yes").returncode == 0
    assert not teacher.exists() and not list(taught.outputs.glob("store/*-*"))
