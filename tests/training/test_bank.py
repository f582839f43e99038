"""A teacher's logits for K views of the images lie on disk, and a student of them is the same in every last bit."""

import dataclasses
import os
import re
import resource

import numpy as np
import pytest
import torch

from kdrun import banks, data, losses
from kdrun.data.transfer import TransferSet
from kdrun.models.cnn import PlainCnn
from kdrun.training import bank
from kdrun.training.request import Sets, cohorts
from kdrun.training.rounding import Rounding
from kdrun.training.table import Place, Table
from tests.training.conftest import HELPED, same, weights

CNN = {"use": "cnn.PlainCnn", "arguments": {"widths": [4, 6], "convolutions": 1, "dropout": 0.2}}
MIXUP = {"use": "mixup.Mixup", "alpha": 1.0, "probability": 1.0}
CPU = Place(torch.device("cpu"))


@pytest.fixture(scope="module")
def some_digits():
    """129 images: the last batch of 32 is one."""
    whole = data.load("digits.digits", name="digits", val_fraction=0.1, split_seed=0)
    return Sets(TransferSet(fraction=0.1).apply(whole), whole.val, whole.test, whole.classes)


@pytest.fixture
def student(request_for, trained_teacher, some_digits):
    """Return a function that requests a student that learns from views of mixed digits."""

    def make(views=3, rounded=None, T=4.0, seed=0, sets=some_digits, epochs=3):
        objective = {"ce": HELPED["ce"], "kd": {**HELPED["kd"], "T": T}}
        teachers = [trained_teacher.spec.fingerprint]
        made = request_for("student", CNN, objective, seed=seed, teachers=teachers, sets=sets, epochs=epochs)
        seen = {**made.spec.data, "augment": {"mixup": MIXUP, "views": views, "seed": 0}}
        return dataclasses.replace(made, spec=dataclasses.replace(made.spec, data=seen, bank=rounded or {}))

    return make


@pytest.fixture
def asked(monkeypatch):
    """Count the images that a frozen network, the teacher, is shown."""
    seen = []
    forward = PlainCnn.forward

    def watched(self, images):
        if not next(self.parameters()).requires_grad:
            seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(PlainCnn, "forward", watched)
    return seen


def files(tmp_path, store="store"):
    """Every bank of the store, and what was left beside them."""
    return sorted(path for path in (tmp_path / store).glob("teacher-*/banks/*"))


def interrupted(obtainer, request, batches):
    """Begin a training, and send it a signal after so many batches."""
    left = batches

    def reached(site):
        nonlocal left
        left -= site == "after_batch"
        obtainer.stop.raised |= left == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdrun.faults.reach", reached)
        with pytest.raises(KeyboardInterrupt):
            obtainer.obtain([request])


@pytest.mark.parametrize("rounded", [{}, {"dtype": "float16"}, {"top_k": 3}, {"dtype": "float16", "top_k": 3}])
def test_final_weights_are_the_same_without_a_table_with_one_with_a_bank_and_after_an_interruption(
    student, new_obtainer, trained_teacher, tmp_path, asked, caplog, rounded
):
    caplog.set_level("INFO")
    request = student(rounded=rounded)
    plain = new_obtainer("plain", cache_logits=False)
    plain.obtain([trained_teacher])
    (computed,) = plain.obtain([request])
    assert not files(tmp_path, "plain")

    interrupted(new_obtainer(), request, batches=6)  # of 4 an epoch
    (path,) = files(tmp_path)
    assert 0 < banks.check(path)["known"] < 3 * 129
    (resumed,) = new_obtainer().obtain([request])
    assert same(weights(computed), weights(resumed))

    obtainer = new_obtainer()
    obtainer.store.remove(resumed.folder)
    asked.clear()
    (again,) = obtainer.obtain([request])
    assert same(weights(computed), weights(again))
    (known,) = {content["known"] for content in map(banks.check, files(tmp_path))}
    assert sum(asked) == 2  # the blank images that show the shapes of its outputs
    assert "teacher logits: 0 of 387 were computed (0%), the others looked up (387 in a bank)" in caplog.text
    assert f"teacher logits: {known} of 387 from the bank of teacher net {trained_teacher.spec.fingerprint}\n" in (
        caplog.text
    )


def test_rounding_changes_a_student_and_is_part_of_what_it_is(student, new_obtainer):
    every = [student(rounded=rounded, epochs=1) for rounded in ({}, {"dtype": "float16"}, {"top_k": 3})]
    assert len({r.spec.fingerprint for r in every}) == 3
    assert [len(cohort) for cohort in cohorts(every)] == [1, 1, 1]  # which hear other logits
    assert "bank" not in every[0].spec.canonical()
    made = [weights(artifact) for artifact in new_obtainer().obtain(every)]
    assert not any(same(made[i], made[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_the_k_largest_logits_stay_and_the_rest_of_the_probability_is_spread_evenly():
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) * 4
    k, z = 7, logits.double().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    expected = np.empty_like(p)
    for row, own in zip(p, expected, strict=True):
        largest = np.argsort(-row)[:k]
        own[:] = (1 - row[largest].sum()) / (300 - k)
        own[largest] = row[largest]
    rounding = Rounding(top_k=k)
    read = rounding.rounded(logits)
    torch.testing.assert_close(read.double().softmax(1), torch.from_numpy(expected), rtol=1e-5, atol=1e-9)
    assert (read == logits).sum() == 50 * k
    half = Rounding("float16", k).rounded(logits)
    assert torch.equal(half, torch.from_numpy(read.numpy().astype(np.float16).astype(np.float32)))
    assert Rounding("float16").rounded(torch.tensor([[1e6, -1e6, 0.1]])).tolist() == [
        [65504.0, -65504.0, 0.0999755859375]
    ]
    for one in (Rounding(), Rounding("float16"), rounding, Rounding("float16", k)):
        kept = one.pack(logits)
        assert sum(values.nbytes for values in kept.values()) == 50 * one.bytes(300)
    tied = torch.zeros(1, 300)
    assert Rounding(top_k=2).pack(tied)["classes"].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("terms", "top_k", "why"),
    [
        ({"kd": {"use": "kd.KD"}, "ce": {"use": "ce.CE"}}, True, None),
        ({"soft_ce": {"use": "soft_ce.SoftCE", "standardize": False}}, True, None),
        (
            {"kd": {"use": "kd.KD", "standardize": True}},
            True,
            "loss.kd: needs all logits, since it standardises them, but",
        ),
        ({"kd": {"use": "kd.KD", "standardize": True}}, False, None),
        ({"m": {"use": "mse_logits.LogitMSE"}}, True, "loss.m: needs all logits, but teacher.bank.top_k keeps"),
        ({"dist": {"use": "dist.DIST"}}, True, "loss.dist: needs all logits"),
        ({"dkd": {"use": "dkd.DKD"}}, True, "loss.dkd: needs all logits"),
        ({"dkd": {"use": "dkd.DKD"}}, False, None),
        ({"ttm": {"use": "ttm.TTM"}, "js": {"use": "js.JS"}}, True, None),
        ({"wttm": {"use": "ttm.WTTM"}}, True, "loss.wttm: needs all logits"),
        ({"at": {"use": "at.AT"}}, False, "loss.at: reads more of the teacher than its logits"),
    ],
)
def test_a_loss_that_rounded_logits_are_not_enough_for_is_refused(terms, top_k, why):
    if why is None:
        losses.refuse_rounding(terms, top_k=top_k)
    else:
        with pytest.raises(ValueError, match=re.escape(why)):
            losses.refuse_rounding(terms, top_k=top_k)


def filled(store, request, logits, views, images=129, rows=9):
    """Write a bank with a few rows; give the table, the bank, and what opens the bank again."""
    artifact = store.find(request.spec.teachers[0])

    def opened():
        return bank.Bank(store, artifact, request.spec, views, images)

    table, own = Table(views, images, CPU), opened()
    table.write(torch.arange(rows), torch.arange(rows), logits[:rows])
    own.keep(table)
    return table, own, opened


def cut(path, _):
    os.truncate(path, path.stat().st_size - 5)


def flip(path, _):
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def edit(path, _):
    content = path.read_bytes()
    assert content.count(b'\\"batch_size\\":32') == 1
    path.write_bytes(content.replace(b'\\"batch_size\\":32', b'\\"batch_size\\":16'))


def swap(path, other):
    other.replace(path)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut, r"it is cut short: [\d,]+ of [\d,]+ bytes"),
        (flip, "its content does not match its checksum"),
        (edit, "its content does not match its checksum"),
        (swap, "it holds the logits for other images or settings than its name says"),
    ],
)
def test_a_bank_that_is_not_whole_or_not_the_one_it_is_named_after_is_said_to_be_and_made_anew(
    student, new_obtainer, tmp_path, caplog, damage, why
):
    logits = torch.randn(387, 10)
    (_, other, _), (table, own, open_) = (filled(new_obtainer().store, student(views=v), logits, v) for v in (2, 3))
    damage(own.path, other.path)
    again = Table(3, 129, CPU)
    reader = open_()
    reader.fill(again)
    assert re.search(rf"the bank {own.path} cannot be used \({why}\); they are computed anew", caplog.text)
    assert not again.known.any() and reader.kept == 0
    reader.keep(table)
    again = Table(3, 129, CPU)
    open_().fill(again)
    assert torch.equal(again.read(torch.arange(9), torch.device("cpu")), logits[:9])
    assert again.known.sum() == 9


def test_two_commands_that_fill_a_bank_at_once_lose_nothing(student, new_obtainer, tmp_path):
    request, logits = student(), torch.randn(387, 10)
    store = new_obtainer().store
    artifact = store.find(request.spec.teachers[0])
    opened = []
    for rows in (torch.arange(0, 200), torch.arange(150, 300)):
        table, own = Table(3, 129, CPU), bank.Bank(store, artifact, request.spec, 3, 129)
        own.fill(table)  # there is none yet
        table.write(rows, rows, logits[rows])
        opened.append((own, table))
    for own, table in opened:
        own.keep(table)
    (path,) = files(tmp_path)
    assert banks.check(path)["known"] == 300
    (tmp_path / "room").mkdir()
    for place in (CPU, Place(torch.device("cpu"), tmp_path / "room")):
        table = Table(3, 129, place)
        bank.Bank(store, artifact, request.spec, 3, 129).fill(table)
        known = torch.arange(300)
        assert torch.equal(table.known.nonzero().flatten(), known)
        assert torch.equal(table.read(known, torch.device("cpu")), logits[:300])
    table.write(torch.arange(300, 387), torch.arange(300, 387), logits[300:])
    own.keep(table)
    assert own.complete
    whole = Table(3, 129, CPU)
    own.fill(whole)
    assert torch.equal(whole.read(torch.arange(387), torch.device("cpu")), logits)
    assert files(tmp_path) == [path]


def test_a_disk_that_is_full_costs_the_bank_and_not_the_training(
    student, new_obtainer, trained_teacher, digits, tmp_path, caplog, monkeypatch
):
    """RLIMIT_FSIZE: checkpoints and records are small enough, a bank of a thousand images is not."""
    whole = data.load("digits.digits", name="digits", val_fraction=0.1, split_seed=0)
    request = student(sets=Sets(whole.train, whole.val, whole.test, whole.classes), epochs=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
        (made,) = new_obtainer().obtain([request])
        assert re.search(
            r"cannot be saved in \S+ \(File too large, \d+ MB free there\); this command goes on", caplog.text
        )
        assert not files(tmp_path)
        monkeypatch.setattr("kdrun.training.tables.place_for", lambda *_, **__: Place(torch.device("cpu"), tmp_path))
        obtainer = new_obtainer()
        obtainer.store.remove(made.folder)
        (again,) = obtainer.obtain([request])
        assert "teacher logits not cached: they cannot be written to disk (File too large)" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(weights(made), weights(again))


def test_a_bank_of_another_environment_is_used_and_said_to_be(student, new_obtainer, caplog, monkeypatch):
    with pytest.MonkeyPatch.context() as before:
        before.setattr("kdrun.training.bank._environment", lambda device: "torch 1.0 on a toaster")
        new_obtainer().obtain([student()])
    caplog.set_level("INFO")
    new_obtainer().obtain([student(T=2.0)])
    assert ", computed by torch 1.0 on a toaster: the last bits may differ from those of torch " in caplog.text
    assert " 0 of 387 were computed" in caplog.text


def test_a_teacher_that_was_removed_or_trained_anew_takes_its_bank_along(student, new_obtainer, tmp_path, caplog):
    request, store = student(), new_obtainer().store
    artifact = store.find(request.spec.teachers[0])
    table, own, _ = filled(store, request, torch.randn(9, 10), 3)
    assert files(tmp_path)
    changed = dataclasses.replace(
        artifact, result={**artifact.result, "checksums": {**artifact.result["checksums"], bank.NETWORK: "0" * 64}}
    )
    other = bank.Bank(store, changed, request.spec, 3, 129)
    assert other.path != own.path
    other.keep(table)
    assert "the teacher was trained anew meanwhile" in caplog.text
    store.remove(artifact.folder)
    table.write(torch.arange(9, 12), torch.arange(9, 12), torch.randn(3, 10))
    own.keep(table)
    assert "cannot be saved in" in caplog.text and not artifact.folder.exists()
