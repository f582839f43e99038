"""Two views of a batch: what is shown in the second, and that whoever needs one view alone trains as before."""

import dataclasses
from unittest import mock

import pytest
import torch
import torchvision.transforms.v2 as reference
from hydra.core.hydra_config import HydraConfig
from torchvision.transforms.v2 import functional

from kdrun import augment, config
from kdrun.augment.operations import OPERATIONS, settings
from kdrun.augment.randaugment import RandAugment
from kdrun.command import groups, preflight
from kdrun.losses import contract, refuse_rounding
from kdrun.losses.base import Objective, Term
from kdrun.models.cnn import PlainCnn
from kdrun.plan import answered, timing
from kdrun.plan.requests import RequestBuilder
from kdrun.training.estimate import size
from kdrun.training.learner import Learner
from kdrun.training.networks import build_model
from kdrun.training.request import cohorts
from kdrun.training.table import Place, Table
from kdrun.training.teaching import Teaching
from tests.augment.test_operations import BLENDED, FUSED, NAMES, SAMPLED
from tests.data.given import batches_of, image_set, shifted
from tests.losses.given import node
from tests.training.conftest import CE, HELPED, KD, interrupt, same, weights, without_time

STRONG = node("mlkd")["strong"]
MLKD = {"ce": {**CE, "label_smoothing": 0.1}, "mlkd": node("mlkd")}


def strong_of(mean, padding=4, **changed):
    data = {"crop_padding": padding, "flip": True, "mean": mean, **changed}
    return augment.strong_of_spec(data, STRONG, (32, 32))


def by_torchvision(image, crop, operations, box, fill):
    """One image (C, H, W), cropped, mirrored, changed by two operations of M = 10 and erased, by torchvision's own."""
    changed = functional.crop(functional.pad(image, [4, 4, 4, 4]), int(crop.top), int(crop.left), 32, 32)
    changed = functional.horizontal_flip(changed) if crop.mirrored else changed
    one = reference.RandAugment()
    for place, needed in zip(operations.operation, operations.settings, strict=True):
        name = NAMES[place]
        magnitudes, signed = one._AUGMENTATION_SPACE[name]
        magnitude = 0.0 if (values := magnitudes(31, 32, 32)) is None else float(values[10])
        # the sign is the one that was drawn: that whose settings these are
        magnitude *= -1 if signed and not torch.equal(needed, settings_of(place, positive=True)) else 1
        changed = one._apply_image_or_video_transform(changed, name, magnitude, one.interpolation, one._fill)
    return functional.erase(
        changed, int(box.top), int(box.left), int(box.height), int(box.width), torch.tensor(fill, dtype=torch.uint8)
    )


def settings_of(place, *, positive):
    return settings(RandAugment(2, 10).magnitudes((32, 32)), (32, 32))[place, 0, 0 if positive else 1]


def test_the_second_view_has_the_pixels_of_torchvisions_operations_and_the_first_is_what_it_was():
    images = image_set(70)
    strong = strong_of([0.5, 0.4, 0.3])
    plain = {"batch_size": 32, "mean": [0.0] * 3, "std": [1 / 255] * 3}  # so that a batch holds the pixels themselves
    alone, both = batches_of(images, **plain), batches_of(images, **plain, strong=strong)
    order = both.order(3)
    look = strong.look(0, 3, order, (32, 32), both.labelled)
    crops, operations, boxes = look.draws
    assert (boxes.height == 8).all() and (boxes.width == 8).all()  # a square in every image
    assert len({OPERATIONS[i] for i in operations.operation.flatten().tolist()}) == len(OPERATIONS)
    fill = [[[round(255 * value)]] for value in (0.5, 0.4, 0.3)]
    shown = []
    for one, two in zip(alone.epoch(3), both.epoch(3), strict=True):
        assert one.strong is None and torch.equal(one.images, two.images)
        assert torch.equal(two.strong.indices, two.indices) and torch.equal(two.strong.labels, two.labels)
        shown.append(two.strong.images)
    equal, exact = [], 0
    for i, pixels in enumerate(torch.cat(shown)):
        wanted = by_torchvision(images.images[order[i]], *(at_one(draws, i) for draws in look.draws), fill)
        equal.append((pixels.round().to(torch.uint8) == wanted).float().mean())
        if not {NAMES[place] for place in operations.operation[i]} & (SAMPLED if FUSED else SAMPLED | BLENDED):
            assert equal[-1] == 1
            exact += 1
    assert len(equal) == 70 and exact > 10 and sum(equal) / 70 >= 0.99
    weak = both.augmentation.look(0, 3, order, (32, 32), both.labelled).draws[0]
    assert 0.3 < (weak.mirrored == crops.mirrored).float().mean() < 0.7  # drawn apart
    halves = [batches_of(images, **plain, strong=strong, rank=rank, ranks=2) for rank in range(2)]
    for whole, *parts in zip(shown, *(half.epoch(3) for half in halves), strict=True):
        assert torch.equal(torch.cat([part.strong.images for part in parts]), whole)
        assert all(torch.equal(part.strong.whole.indices, part.whole.indices) for part in parts)
    (resumed,) = both.epoch(3, start=2)
    assert torch.equal(resumed.strong.images, shown[2])


def at_one(draws, i):
    return type(draws)(*(values[i] for values in draws))


def test_the_second_view_is_augments_and_strongs_new_in_every_epoch_and_never_of_two_images():
    views = strong_of([0.5], augment={"resized_crop": {"use": "resized_crop.ResizedCrop"}, "views": 2, "seed": 5})
    assert [type(stage).__name__ for stage in views.stages] == ["CropFlip", "ResizedCrop", "RandAugment", "Erasing"]
    assert views.views is None and views.form_count is None
    own = {"randaugment": {"use": "randaugment.RandAugment", "M": 3}}
    assert [stage.magnitude for stage in strong_of([0.5], augment=own).stages[1:2]] == [10]
    data = {"crop_padding": 0, "flip": False, "mean": [0.5]}
    with pytest.raises(ValueError, match=r"strong: a strong view is of one image"):
        augment.strong_of_spec(data, {"mixup": {"use": "mixup.Mixup"}}, (32, 32))
    with pytest.raises(ValueError, match=r"^strong\.randaugment: M=31: must lie in \[0, 30\]"):
        augment.strong_of_spec(data, {"randaugment": {**STRONG["randaugment"], "M": 31}}, (32, 32))
    assert augment.strong_of_spec(data, None, (32, 32)) is None


@pytest.fixture
def student(request_for, trained_teacher):
    def make(objective, **settings):
        return request_for("student", objective=objective, teachers=[trained_teacher.spec.fingerprint], **settings)

    return make


def test_a_cohort_of_one_view_and_two_is_its_members_alone_and_goes_on_after_an_interruption(
    request_for, student, new_obtainer, trained_teacher, monkeypatch, caplog
):
    caplog.set_level("INFO")
    wanted = [request_for(), student(HELPED, epochs=8), student(MLKD, epochs=8)]
    assert len(cohorts(wanted)) == 1
    calls, forward = [], Learner._seen
    monkeypatch.setattr(Learner, "_seen", lambda s, batch: calls.append((s, batch.images)) or forward(s, batch))
    together = new_obtainer().obtain(wanted)
    assert "views of 129 images); those of the strong view are computed at every step" in caplog.text
    steps = {learner: sum(1 for own, _ in calls if own is learner) for learner, _ in calls}
    assert sorted(steps.values()) == [12, 32, 64]  # 4 batches an epoch: only MLKD's student pays for its second view
    views = [images for learner, images in calls if steps[learner] == 64]
    assert steps[calls[0][0]] != 64 and torch.equal(views[0], calls[0][1])  # the weak view comes first
    assert not torch.equal(views[0], views[1])
    alone, stopped = new_obtainer("alone", cache_logits=False), new_obtainer("stopped")
    for obtainer in (alone, stopped):
        obtainer.obtain([trained_teacher])
    interrupt(stopped, wanted)
    resumed = new_obtainer("stopped").obtain(wanted)
    for request, artifact, again in zip(wanted, together, resumed, strict=True):
        (single,) = alone.obtain([request])
        assert same(weights(single), weights(artifact)) and same(weights(again), weights(artifact))
        assert without_time(single) == without_time(artifact)


def test_different_strong_views_are_different_cohorts_and_whoever_needs_none_trains_with_the_first(request_for):
    other = {**MLKD, "mlkd": {**MLKD["mlkd"], "strong": {"erasing": STRONG["erasing"]}}}
    kinds = [None, MLKD, {"ce": CE, "kd": KD}, other, {**MLKD, "kd": KD}]
    plain, first, kd, second, both = (
        request_for("student" if kind else "baseline", objective=kind, teachers=["t"] if kind else []) for kind in kinds
    )
    assert cohorts([plain, first, kd, second, both]) == [[plain, first, kd, both], [second]]
    assert cohorts([plain, kd]) == [[plain, kd]]
    assert first.strong == both.strong == STRONG != second.strong and plain.strong is None
    assert dataclasses.replace(first, spec=dataclasses.replace(first.spec, objective={})).strong is None


def test_the_estimate_of_memory_counts_the_activations_of_both_views(request_for):
    one, two = request_for(objective={"ce": CE, "kd": KD}).spec, request_for(objective=MLKD).spec
    model = build_model(one, seed=0)
    assert size(model, two) == size(model, one)._replace(activations=2 * size(model, one).activations)


def test_a_teacher_answers_to_the_second_view_at_every_step():
    batches = batches_of(image_set(40, 1, (8, 8)), batch_size=20, augmentation=shifted(), strong=shifted(1))
    table = Table(1, 40, Place(torch.device("cpu")))
    table.write(torch.arange(40), torch.arange(40), torch.randn(40, 10))
    teacher = PlainCnn(10, 1, (8, 8), [8], convolutions=1).to(memory_format=torch.channels_last).eval()
    teaching = Teaching([teacher], batches, precision="fp32", device=torch.device("cpu"), tables=[table])
    teaching.begin(0, 0)
    batch = next(batches.epoch(0))
    (one,) = teaching.teacher_outputs(batch, 0, logits_only=True)
    assert one.strong is None and torch.equal(one.logits, table.read(batch.indices, batches.device))
    (both,) = teaching.teacher_outputs(batch, 0, logits_only=True, strong=True)
    assert torch.equal(both.logits, one.logits)
    assert torch.equal(both.strong.logits, teacher(batch.strong.images).logits)


def test_answers_from_a_file_and_rounded_ones_are_refused_as_they_are_of_one_view(digits, student, monkeypatch):
    monkeypatch.setattr(answered.answers, "read", lambda file, dataset: mock.Mock())
    with pytest.raises(ValueError, match=r"loss\.mlkd: compares two views .* teacher\.file=a\.csv has answers to one"):
        answered.check(student(MLKD), "a.csv", digits, fixed=True)
    with pytest.raises(
        ValueError, match=r"loss\.mlkd: compares two views .* a bank holds the teacher's logits for only"
    ):
        refuse_rounding(MLKD, top_k=False)


class BothViews(Term):
    """A user's own loss that reads the student's answers to both views, and the images of the second."""

    needs_teacher = False
    needs_strong = True

    def forward(self, student, teacher, batch):
        return (student.logits - student.strong.logits).square().mean() + 0 * batch.strong.images.sum()

    def formula(self):
        return "MSE(z, z of the strong view)"


def test_a_loss_of_ones_own_may_need_both_views_and_is_tried_with_them_before_it_trains():
    objective = Objective({"mine": (1.0, BothViews())})
    student = contract.seen(contract.outputs(contract.ZS), strong=True)
    contract.attempt(objective, student, [], torch.zeros(4, 1, 8, 8), contract.Y)
    with pytest.raises(ValueError, match=r"loss\.mine: .* cannot be minimised"):
        contract.attempt(objective, student._replace(strong=None), [], torch.zeros(4, 1, 8, 8), contract.Y)


def test_half_of_the_teachers_time_stays_where_a_table_has_the_first_view(request_for):
    timed = timing.Timed(load=0.0, teach=1.0, step=0.0, measure=0.0, forms=1)
    one, two = (request_for("student", objective=kind, teachers=["t"]) for kind in ({"ce": CE, "kd": KD}, MLKD))
    steps = -(-len(one.sets.train) // 32)
    assert timing._total(one, timed, 1) == pytest.approx(steps)  # each image once, in 3 epochs
    assert timing._total(two, timed, 1) == pytest.approx(steps * (3 + 1) / 2)


def builder(*words):
    groups.register([config.CONF])
    (cell,) = preflight.check("distill", [*words, "seeds=1"], sweep=False, dirs=[config.CONF]).cells
    HydraConfig.instance().set_config(cell.cfg)
    return RequestBuilder.read("distill", cell.cfg, cell.cfg.hydra.runtime.choices, torch.device("cpu"))


def test_the_baseline_is_that_of_every_other_loss_and_what_cannot_be_is_refused():
    chosen = builder("loss=mlkd")
    teacher, baseline = chosen.teacher().spec, chosen.baseline(0)
    assert [teacher.fingerprint, baseline.spec.fingerprint] == ["52b41de56956", "fb8ccbe1d5fe"]
    made = chosen.student(0, [teacher])
    assert made.spec.data == baseline.spec.data and made.strong == STRONG
    assert len(cohorts([baseline, made])) == 1
    for words, message in (
        (
            ["augment=mixup"],
            r"^loss\.mlkd: compares two views of each image, but mixup and cutmix make one image of two",
        ),
        (["loss.mlkd.strong.randaugment.M=99"], r"^loss\.mlkd\.strong\.randaugment: M=99: must lie in \[0, 30\]"),
    ):
        with pytest.raises(ValueError, match=message):
            builder("loss=mlkd", *words).student(0, [teacher])
