"""Peers train as one unit, several teachers teach at once, and what terms learn is kept beside the student."""

import dataclasses
import shutil

import pytest
import safetensors.torch
import torch

from kdrun.training.networks import build_model
from kdrun.training.request import cohorts, group_peers
from tests.training.conftest import CE, KD, STUDENT, TEACHER, interrupt, same, weights

DML = {"use": "dml.DML", "weight": 1.0, "T": 1.0}


@pytest.fixture
def peers(request_for):
    """Return a function that makes requests of three peers: two of one kind from other weights, and a third kind."""

    def make(**settings):
        objective = {"ce": CE, "dml": {**DML, "heard": {"teachers": [0, 1], "weights": [0.5, 0.5]}}}
        alone = [
            request_for("peer", model, objective, **settings) for model in (STUDENT, {**STUDENT, "init": 1}, TEACHER)
        ]
        made = []
        for i, request in enumerate(alone):
            others = [r.spec for j, r in enumerate(alone) if j != i]
            beside = tuple({"model": dict(s.model), "recipe": dict(s.recipe)} for s in others)
            made.append(
                dataclasses.replace(request, spec=dataclasses.replace(request.spec, peers=beside), name=f"peer {i}")
            )
        return made

    return make


def test_peers_can_only_be_trained_together_and_beside_anything_else(peers, request_for):
    group = [r.spec.fingerprint for r in group_peers(peers())[0]]
    assert sorted(group) == sorted(r.spec.fingerprint for r in peers())
    assert [len(g) for g in group_peers([*peers(), *peers(seed=1), request_for()])] == [3, 3, 1]
    assert len(cohorts([*peers(), request_for()])) == 1


def test_a_second_network_of_a_kind_starts_from_other_weights(peers):
    first, second, _ = (build_model(r.spec, seed=r.spec.seed) for r in peers())
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_peers_teach_each_other_and_are_the_same_in_whatever_order_they_are_asked_for(peers, request_for, new_obtainer):
    trained = new_obtainer().obtain(peers())
    again = new_obtainer("other").obtain([*reversed(peers()), request_for()])[:3]
    for artifact, other in zip(trained, reversed(again), strict=True):
        assert same(weights(artifact), weights(other))
    alone = new_obtainer().obtain([request_for(model=STUDENT)])[0]
    assert not same(weights(trained[0]), weights(alone))
    assert "loss.dml" in (trained[0].folder / "history.csv").read_text()


def test_peers_go_on_from_their_checkpoint_bit_for_bit(peers, new_obtainer):
    whole = new_obtainer("whole").obtain(peers())
    obtainer = new_obtainer()
    interrupt(obtainer, peers())
    assert len(list(obtainer.store.root.glob("*/checkpoint"))) == 1  # one for all: they cannot fall apart
    for artifact, resumed in zip(whole, new_obtainer().obtain(peers()), strict=True):
        assert same(weights(artifact), weights(resumed))


def test_a_peer_that_is_missing_is_trained_again_with_the_others_which_stay(peers, new_obtainer):
    trained = new_obtainer().obtain(peers())
    before = [weights(artifact) for artifact in trained]
    written = (trained[0].folder / "result.json").stat().st_mtime_ns
    shutil.rmtree(trained[1].folder)
    again = new_obtainer().obtain(peers())
    assert all(same(a, weights(b)) for a, b in zip(before, again, strict=True))
    assert (trained[0].folder / "result.json").stat().st_mtime_ns == written


def test_when_one_peer_diverges_the_others_cannot_go_on(peers, new_obtainer):
    group = peers()
    wild = {**group[0].spec.recipe, "lr": 1e30}
    specs = [dataclasses.replace(group[0].spec, recipe=wild)]
    for request in group[1:]:
        others = [{**p, "recipe": wild} if p["model"] == group[0].spec.model else p for p in request.spec.peers]
        specs.append(dataclasses.replace(request.spec, peers=tuple(others)))
    calls = [dataclasses.replace(r, spec=s) for r, s in zip(group, specs, strict=True)]
    assert len(group_peers(calls)) == 1
    results = [artifact.result for artifact in new_obtainer().obtain(calls)]
    assert [result["status"] for result in results] == ["diverged"] * 3
    assert all("no good epoch" in result["reason"] for result in results)


def test_a_term_for_each_of_two_teachers_is_bit_for_bit_the_sum_of_both(request_for, new_obtainer, trained_teacher):
    other = request_for("teacher", TEACHER, epochs=1, seed=5)
    obtainer = new_obtainer()
    obtainer.obtain([trained_teacher, other])
    fingerprints = [trained_teacher.spec.fingerprint, other.spec.fingerprint]
    one = {"ce": CE, "kd_a": {**KD, "heard": {"teachers": [0], "weights": [1.0]}}}
    both = one | {"kd_b": {**KD, "heard": {"teachers": [1], "weights": [1.0]}}}
    first, plain, second = obtainer.obtain(
        [
            request_for("student", objective=one, teachers=fingerprints),
            request_for("student", objective={"ce": CE, "kd_a": KD}, teachers=fingerprints[:1]),
            request_for("student", objective=both, teachers=fingerprints),
        ]
    )
    assert same(weights(first), weights(plain))
    assert not same(weights(first), weights(second))


def test_what_a_terms_projections_learned_is_kept_beside_the_student_and_banks_are_not(
    request_for, new_obtainer, trained_teacher
):
    taught = [trained_teacher.spec.fingerprint]
    crd = {"ce": CE, "crd": {"use": "crd.CRD", "weight": 0.8, "negatives": 20}}
    (artifact,) = new_obtainer().obtain([request_for("student", objective=crd, teachers=taught)])
    kept = safetensors.torch.load_file(artifact.folder / "terms.safetensors")
    assert {name.split(".")[2] for name in kept} == {"embed_student", "embed_teacher"}
    assert "terms.safetensors" in artifact.result["checksums"]
    assert not any("embed" in name for name in weights(artifact))
