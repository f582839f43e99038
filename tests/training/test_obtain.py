import dataclasses
import json
import os
import re

import pytest
import safetensors.torch
import torch

from kdrun.files import RunFailed
from kdrun.training.average import Average
from kdrun.training.request import Sets, cohorts
from tests.training.conftest import CE, HELPED, KD, TEACHER, same, weights, without_time


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_cohort_trains_bit_for_bit_what_one_at_a_time_trains(request_for, new_obtainer, trained_teacher, ema):
    fingerprint = trained_teacher.spec.fingerprint
    baseline = request_for("baseline", seed=3, ema_decay=ema)
    student = request_for("student", objective=HELPED, seed=3, teachers=[fingerprint], ema_decay=ema)
    hotter = {"ce": CE, "kd": {**KD, "T": 8.0}}
    other = request_for("student", TEACHER, hotter, seed=3, teachers=[fingerprint], epochs=2, lr=0.05)
    wanted = [baseline, student, other]
    assert len(cohorts(wanted)) == 1
    together = new_obtainer().obtain(wanted)
    alone = new_obtainer("alone")
    alone.obtain([trained_teacher])
    for request, artifact in zip(wanted, together, strict=True):
        (single,) = alone.obtain([request])
        assert same(weights(single), weights(artifact))
        assert single.result["selected"] == artifact.result["selected"]
        assert without_time(single) == without_time(artifact)


def test_alpha_0_gives_bit_for_bit_the_baseline(request_for, new_obtainer, trained_teacher):
    teachers = [trained_teacher.spec.fingerprint]
    nothing = {"ce": CE, "kd": {**KD, "weight": 0.0}}
    student = request_for("student", objective=nothing, seed=1, teachers=teachers)
    baseline = request_for("baseline", seed=1)
    a, b = new_obtainer().obtain([student, baseline])
    assert a.fingerprint != b.fingerprint  # two trainings, not one found twice
    assert same(weights(a), weights(b))


def test_alpha_1_never_reads_a_label(request_for, new_obtainer, trained_teacher, digits):
    teachers = [trained_teacher.spec.fingerprint]
    shuffled = digits.train.with_labels(digits.train.labels.flip(0))
    assert not torch.equal(shuffled.labels, digits.train.labels)
    alone = {"ce": {**CE, "weight": 0.0}, "kd": {**KD, "weight": 1.0}}
    honest = request_for("student", objective=alone, teachers=teachers)
    sets = dataclasses.replace(honest.sets, train=shuffled)
    (a,) = new_obtainer().obtain([honest])
    other = new_obtainer("other")
    other.obtain([trained_teacher])
    (b,) = other.obtain([request_for("student", objective=alone, teachers=teachers, sets=sets)])
    assert same(weights(a), weights(b))


def test_the_same_spec_is_trained_once_and_found_by_every_later_command(request_for, new_obtainer, caplog):
    caplog.set_level("DEBUG")
    request = request_for()
    (first,) = new_obtainer().obtain([request])
    written = (first.folder / "result.json").stat().st_mtime_ns
    (again,) = new_obtainer().obtain([request])
    assert again.fingerprint == first.fingerprint
    assert (again.folder / "result.json").stat().st_mtime_ns == written
    assert f"found {first.fingerprint}" in caplog.text


def test_what_is_trained_anew_is_explained_by_what_differs(request_for, new_obtainer, caplog):
    caplog.set_level("DEBUG")
    (first,) = new_obtainer().obtain([request_for(epochs=1)])
    new_obtainer().obtain([request_for(epochs=2)])
    assert f"differs from {first.fingerprint} in recipe.epochs" in caplog.text


def test_force_trains_anew_what_was_not_begun_for_this_command_and_whatever_the_clocks_say(request_for, new_obtainer):
    request = request_for(epochs=1)
    (first,) = new_obtainer(anew="one").obtain([request])
    trained = set()

    def forced_by(command):
        """Whether a command with force=true trains it."""
        os.utime(first.folder / "spec.json", (0, 0))
        (again,) = new_obtainer(anew=command).obtain([request])
        assert same(weights(first), weights(again))
        number = (first.folder / "result.json").stat().st_ino, (first.folder / "result.json").stat().st_mtime_ns
        new = number not in trained
        trained.add(number)
        return new

    forced_by("one")
    assert not forced_by("one")  # this command made it: the next cell of a sweep finds it
    assert forced_by("two")
    assert not forced_by("one")  # two commands at once do not train it in turns
    (result,) = new_obtainer().obtain([request])
    assert same(weights(first), weights(result)) and not forced_by("two")


def test_checkpoints_left_by_a_kill_after_the_result_go_only_while_nobody_holds_the_lock(request_for, new_obtainer):
    request, obtainer = request_for(epochs=1), new_obtainer()
    (first,) = obtainer.obtain([request])
    left = first.folder / "checkpoint" / "000000001.ckpt"
    left.parent.mkdir()
    left.write_bytes(b"left")
    assert obtainer.store.find(first.fingerprint) is not None and left.exists()
    with obtainer.store.locked(first.fingerprint, None):
        new_obtainer().obtain([request])
        assert left.exists()
    new_obtainer().obtain([request])
    assert not left.parent.exists()


def test_an_unfinished_entry_is_never_taken_for_a_finished_one(request_for, new_obtainer):
    request = request_for(epochs=1)
    (first,) = new_obtainer().obtain([request])
    (first.folder / "result.json").unlink()
    assert new_obtainer().store.find(first.fingerprint) is None
    (again,) = new_obtainer().obtain([request])
    assert (again.folder / "result.json").is_file()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]])
def test_a_damaged_artifact_is_set_aside_loudly_and_never_used(request_for, new_obtainer, damage):
    request = request_for(epochs=1)
    (first,) = new_obtainer().obtain([request])
    file = first.folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RunFailed, match=r"damaged \(model.safetensors\).*\.corrupt"):
        new_obtainer().obtain([request])
    assert first.folder.with_name(first.folder.name + ".corrupt").is_dir()
    assert new_obtainer().obtain([request])[0].finished


def test_a_diverged_learner_leaves_and_its_mates_go_on(request_for, new_obtainer):
    wild = request_for("student", objective={"ce": {**CE, "weight": 2.0}}, lr=1e30)
    calm = request_for("baseline")
    lost, kept = new_obtainer().obtain([wild, calm])
    assert lost.result["status"] == "diverged" and kept.result["status"] == "done"
    reason = lost.result["reason"]
    assert "epoch 1" in reason and "batch" in reason and "ce" in reason and "lr" in reason
    assert not (lost.folder / "model.safetensors").exists()
    (single,) = new_obtainer("alone").obtain([calm])
    assert same(weights(single), weights(kept))


def test_a_weight_that_is_not_finite_at_the_last_step_is_not_chosen_as_best(request_for, new_obtainer, digits):
    # one batch: the loss is finite, the update is not, and only the check of the weights can see it
    few = Sets(digits.train.subset(torch.arange(8)), digits.val, digits.test, digits.classes)
    (lost,) = new_obtainer().obtain(
        [request_for(sets=few, lr=1e38, epochs=1, momentum=0.0, nesterov=False, weight_decay=1e30)]
    )
    assert lost.result["status"] == "diverged", lost.result["selected"]
    assert lost.result["selected"] is None


def test_training_stops_early_on_convergence(request_for, new_obtainer):
    (artifact,) = new_obtainer().obtain([request_for(epochs=50, patience=2, lr=1e-9, schedule="constant")])
    assert artifact.result["epochs"] == 3  # the first is the best, two without improvement follow
    assert artifact.result["selected"]["val"]["accuracy"] == artifact.result["last"]["val"]["accuracy"]


def test_without_a_validation_set_the_last_epoch_is_kept(request_for, new_obtainer, digits):
    sets = Sets(digits.train, None, digits.test, digits.classes)
    (artifact,) = new_obtainer().obtain([request_for(sets=sets)])
    assert artifact.result["selected"] == artifact.result["last"]
    assert artifact.result["selected"]["epoch"] == 3
    assert artifact.result["selected"]["val"] is None


def test_the_papers_protocol_keeps_the_last_epoch_and_labels_the_best_on_test(request_for, new_obtainer, digits):
    sets = Sets(digits.train, None, digits.test, digits.classes)
    (artifact,) = new_obtainer().obtain([request_for(sets=sets, protocol="paper", epochs=4)])
    result = artifact.result
    rows = (artifact.folder / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("test_accuracy")
    seen = [float(row.split(",")[column]) for row in rows[1:]]
    assert result["selected"]["epoch"] == 4
    assert result["best_test"]["test"]["accuracy"] == max(seen)
    assert seen[result["best_test"]["epoch"] - 1] == max(seen)
    assert result["selected"]["test"]["accuracy"] == pytest.approx(seen[-1])


def test_the_recorded_accuracy_is_that_of_the_stored_weights_and_logits(request_for, new_obtainer, digits):
    from kdrun.data.batches import in_order
    from kdrun.training.networks import load_model

    (artifact,) = new_obtainer().obtain([request_for()])
    model = load_model(artifact).eval()
    (batch,) = in_order(digits.test, batch_size=1000, mean=digits.mean, std=digits.std, device="cpu")
    with torch.no_grad():
        logits = model(batch.images).logits
    stored = safetensors.torch.load_file(artifact.folder / "logits.safetensors")
    torch.testing.assert_close(stored["test"], logits)
    right = (stored["test"].argmax(1) == stored["test_labels"]).double().mean().item()
    assert artifact.result["selected"]["test"]["accuracy"] == right


def test_result_json_holds_no_number_that_json_lacks(request_for, new_obtainer):
    (artifact,) = new_obtainer().obtain([request_for(epochs=1)])
    text = (artifact.folder / "result.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["parameters"] == 64 * 16 + 16 + 16 * 10 + 10


def test_a_finished_network_whose_outputs_overflow_is_recorded_as_diverged(request_for, new_obtainer, digits):
    # one batch, no validation: the weights stay finite, and what they give does not
    few = Sets(digits.train.subset(torch.arange(8)), None, digits.test, digits.classes)
    wild = {"lr": 1e37, "epochs": 1, "momentum": 0.0, "nesterov": False, "schedule": "constant"}
    (lost,) = new_obtainer().obtain([request_for(sets=few, **wild)])
    assert lost.result["status"] == "diverged"
    assert "the outputs on the train set are not finite" in lost.result["reason"]


def test_a_training_in_bf16_says_so_and_is_another_spec(request_for, new_obtainer):
    exact = request_for(epochs=1)
    half = dataclasses.replace(exact, spec=dataclasses.replace(exact.spec, precision="bf16"))
    a, b = new_obtainer().obtain([exact, half])
    assert a.fingerprint != b.fingerprint
    assert (b.result["precision"], b.spec.precision) == ("bf16", "bf16")
    assert not same(weights(a), weights(b))
    assert {v.dtype for v in weights(b).values()} == {torch.float32}


def test_an_average_that_is_worse_than_the_trained_weights_is_said(request_for, new_obtainer, caplog, monkeypatch):
    (good,) = new_obtainer().obtain([request_for(ema_decay=0.5, epochs=12)])
    assert "with averaged weights (EMA)" not in caplog.text
    monkeypatch.setattr(Average, "update_parameters", lambda self, model: None)  # it keeps the initial weights
    (bad,) = new_obtainer().obtain([request_for(ema_decay=0.6, epochs=12)])
    assert re.search(
        r"after the last epoch validation accuracy is [\d.]+% with averaged weights \(EMA\) and [\d.]+% without: "
        r"recipe\.ema_decay=0\.6 averages over too much",
        caplog.text,
    )
    assert bad.result["last"]["val"]["accuracy"] < good.result["last"]["val"]["accuracy"]
