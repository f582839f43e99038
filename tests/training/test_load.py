"""kdrun.load: a trained network on raw images."""

import json

import pytest
import safetensors.torch
import torch

import kdrun

OBJECTIVE = {"ce": {"use": "ce.CE", "weight": 1.0, "label_smoothing": 0.1}}


@pytest.fixture
def run(tmp_path, request_for, new_obtainer):
    """A run of a baseline and two students on two seeds, as a verb records it; with its outputs folder."""
    obtainer = new_obtainer("outputs/store")
    wanted = [request_for("baseline", epochs=1)]
    wanted += [request_for("student", objective=OBJECTIVE, seed=seed, epochs=1) for seed in (0, 1)]
    made = obtainer.obtain(wanted)
    folder = tmp_path / "outputs" / "runs" / "distill" / "2026-01-01_00-00-00-abcdef"
    folder.mkdir(parents=True)
    used = [
        {"role": r.role, "seed": r.spec.seed, "fingerprint": a.fingerprint, "folder": a.folder.name}
        for r, a in zip(wanted, made, strict=True)
    ]
    record = {
        "verb": "distill", "command": "kdrun distill", "status": "done", "reason": None,
        "created": "2026-01-01T00:00:00+00:00", "kdrun": kdrun.__version__, "choices": {"dataset": "digits"},
        "overrides": [], "config": {}, "formula": "CE", "artifacts": used,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder, made


def outputs(run):
    return str(run[0].parents[2])


@pytest.mark.parametrize(("role", "seed", "place"), [("baseline", None, 0), ("student", 0, 1), ("student", 1, 2)])
def test_raw_bytes_give_the_stored_logits(run, digits, role, seed, place):
    folder, made = run
    model = kdrun.load(str(folder), role=role, seed=seed, outputs=outputs(run))
    assert not model.training and model.classes == digits.classes and model.image_size == (8, 8)
    stored = safetensors.torch.load_file(made[place].folder / "logits.safetensors")
    raw = digits.test.images
    assert raw.dtype == torch.uint8
    with torch.no_grad():
        torch.testing.assert_close(model(raw), stored["test"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(raw.float() / 255), stored["test"], rtol=1e-5, atol=1e-5)


def test_without_a_seed_it_is_the_first(run):
    a = kdrun.load(str(run[0]), outputs=outputs(run)).state_dict()
    b = kdrun.load(str(run[0]), seed=0, outputs=outputs(run)).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("choice", "message"), [({"role": "teacher"}, "teacher"), ({"role": "nobody"}, "nobody"), ({"seed": 7}, "7")]
)
def test_a_role_or_a_seed_that_is_not_there_is_refused(run, choice, message):
    with pytest.raises(ValueError, match=message):
        kdrun.load(str(run[0]), outputs=outputs(run), **choice)


def test_an_artifact_that_was_removed_is_named(run):
    import shutil

    shutil.rmtree(run[1][0].folder)
    with pytest.raises(ValueError, match=f"baseline {run[1][0].fingerprint} is no longer in"):
        kdrun.load(str(run[0]), role="baseline", outputs=outputs(run))
