"""What a teacher says is remembered where images come in few forms, and no number changes by it."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from kdrun import data
from kdrun.data.batches import Batches
from kdrun.data.transfer import TransferSet
from kdrun.models.cnn import PlainCnn
from kdrun.training.request import Sets
from kdrun.training.table import Place, Table
from kdrun.training.teaching import Teaching
from tests.data.given import shifted
from tests.training.conftest import CE, KD, interrupt, same, weights

AT = {"use": "at.AT", "weight": 10.0}
CNN = {"use": "cnn.PlainCnn", "arguments": {"widths": [4, 6], "convolutions": 1, "dropout": 0.2}}


COUNTED = (r"teacher logits: (\d+) of", r"teacher logits: \d+ of (\d+)")


@pytest.fixture
def student_request(request_for):
    """Return a function that requests a student on digits with or without flips."""

    def make(objective, teacher, flip, seed=0, padding=0, **recipe):
        whole = data.load("digits.digits", name="digits", val_fraction=0.1, split_seed=0)
        few = TransferSet(fraction=0.1).apply(whole)  # 129 images: the last batch of 32 is one
        sets = Sets(few, whole.val, whole.test, whole.classes)
        made = request_for("student", CNN, objective, seed=seed, teachers=[teacher], sets=sets, **recipe)
        described = {**made.spec.data, "crop_padding": padding, "flip": flip}
        return dataclasses.replace(made, spec=dataclasses.replace(made.spec, data=described))

    return make


@pytest.fixture
def calls(monkeypatch):
    """Count the images that pass through the teacher in training, by watching the one network of its kind in eval."""
    seen = []
    forward = PlainCnn.forward

    def watched(self, images):
        if not self.training and images.shape[0] == 32:
            seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(PlainCnn, "forward", watched)
    return seen


@pytest.mark.parametrize(("padding", "flip", "forms"), [(0, False, 1), (0, True, 2), (1, True, 18)])
def test_a_student_is_the_same_bit_for_bit_with_and_without_the_table(
    student_request, new_obtainer, trained_teacher, padding, flip, forms, calls, caplog
):
    caplog.set_level("INFO")
    teacher = trained_teacher.spec.fingerprint
    objective = {"ce": CE, "kd": KD}
    seeds = [student_request(objective, teacher, flip, seed, padding=padding, epochs=6) for seed in (0, 1)]
    plain = new_obtainer("plain", cache_logits=False)
    plain.obtain([trained_teacher])
    calls.clear()
    computed = plain.obtain(seeds)
    always = len(calls)
    calls.clear()
    remembered = new_obtainer().obtain(seeds)
    assert all(same(weights(a), weights(b)) for a, b in zip(computed, remembered, strict=True))
    assert f"cached in memory ({forms} view" in caplog.text
    computed, shown = (sum(map(int, re.findall(pattern, caplog.text.replace(",", "")))) for pattern in COUNTED)
    assert shown == 12 * 129
    # 12 epochs show V(1 − (1 − 1/V)^12) of an image's V forms on average
    assert computed == pytest.approx(129 * forms * (1 - (1 - 1 / forms) ** 12), rel=0.05)
    assert len(calls) <= 2 + computed / 32 + 12 < always  # 2 to see whether a row depends on the others


def test_what_is_remembered_survives_an_epoch_that_was_entered_in_its_middle(
    student_request, new_obtainer, trained_teacher
):
    teacher = trained_teacher.spec.fingerprint
    request = student_request({"ce": CE, "kd": KD}, teacher, False, epochs=4)
    (whole,) = new_obtainer("whole").obtain([trained_teacher]) and new_obtainer("whole").obtain([request])
    interrupt(new_obtainer(), [request])
    (resumed,) = new_obtainer().obtain([request])
    assert same(weights(whole), weights(resumed))


@pytest.mark.parametrize(
    ("objective", "changes", "why"),
    [
        ({"ce": CE, "kd": KD, "at": AT}, {}, "a loss compares more than logits"),
        ({"ce": CE, "kd": KD}, {"augment": {"mixup": {"use": "mixup.Mixup"}}}, "every epoch shows new views"),
    ],
)
def test_where_nothing_can_be_remembered_the_reason_is_said(
    student_request, new_obtainer, trained_teacher, caplog, objective, changes, why
):
    caplog.set_level("INFO")
    request = student_request(objective, trained_teacher.spec.fingerprint, False, epochs=2)
    spec = dataclasses.replace(request.spec, data={**request.spec.data, **changes})
    new_obtainer().obtain([dataclasses.replace(request, spec=spec)])
    assert f"not cached: {why}" in caplog.text


def test_a_smaller_last_batch_is_filled_up_so_that_each_image_gets_the_logits_that_a_full_one_gives(digits):
    torch.manual_seed(0)
    teacher: nn.Module = PlainCnn(10, 1, (8, 8), [16, 32], convolutions=2).to(memory_format=torch.channels_last).eval()
    images = digits.train.subset(torch.arange(75))
    batches = Batches(images, batch_size=32, seed=0, augmentation=shifted(), mean=[0.3], std=[0.4], device="cpu")
    teaching = Teaching([teacher], batches, precision="fp32", device=torch.device("cpu"))
    result: dict[int, list[torch.Tensor]] = {}
    for epoch in range(4):
        for batch in batches.epoch(epoch):
            (outputs,) = teaching.teacher_outputs(batch, 0, logits_only=False)
            assert len(outputs.logits) == len(outputs.features["stage1"]) == len(outputs.embedding) == len(batch.labels)
            for index, row in zip(batch.indices.tolist(), outputs.logits, strict=True):
                result.setdefault(index, []).append(row)
    assert all(torch.equal(rows[0], row) for rows in result.values() for row in rows[1:])


def test_a_teacher_whose_answers_depend_on_the_rest_of_a_batch_has_no_table_and_this_is_said(digits, caplog):
    class Relative(PlainCnn):
        def forward(self, images):
            outputs = super().forward(images)
            weight = torch.arange(1.0, len(images) + 1)[:, None]  # so that the order counts too
            return outputs._replace(logits=outputs.logits - (weight * outputs.logits).mean(0))

    torch.manual_seed(0)
    teacher: nn.Module = Relative(10, 1, (8, 8), [4, 4], convolutions=1).to(memory_format=torch.channels_last).eval()
    images = digits.train.subset(torch.arange(75))
    batches = Batches(images, batch_size=32, seed=0, augmentation=shifted(0, True), mean=[0.3], std=[0.4], device="cpu")
    table = Table(2, 75, Place(torch.device("cpu")))
    kept, every = (
        Teaching([teacher], batches, precision="fp32", device=torch.device("cpu"), tables=tables)
        for tables in ([table], [])
    )
    for epoch in range(2):
        kept.begin(epoch, 0)
        for number, batch in enumerate(batches.epoch(epoch)):
            (one,), (other,) = (t.teacher_outputs(batch, number, logits_only=True) for t in (kept, every))
            assert torch.equal(one.logits, other.logits)
    assert caplog.text.count("depend on which images share its batch") == 1 and not table.known.any()
