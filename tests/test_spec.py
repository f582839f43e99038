import dataclasses
import hashlib

import pytest

from kdrun.spec import Spec, differences

SPEC = Spec(
    data={"digest": "ab", "mean": [0.5]},
    model={"use": "mlp.Mlp", "arguments": {"hidden": [8]}},
    objective={"ce": {"weight": 1.0}},
    recipe={"epochs": 3, "lr": 0.1},
    seed=0,
    precision="fp32",
)


def test_the_fingerprint_is_the_sha256_of_the_canonical_json():
    text = (
        '{"data":{"digest":"ab","mean":[0.5]},"model":{"arguments":{"hidden":[8]},"use":"mlp.Mlp"},"numerics":2,'
        '"objective":{"ce":{"weight":1}},"precision":"fp32","recipe":{"epochs":3,"lr":0.1},"seed":0,"teachers":[]}'
    )
    assert SPEC.fingerprint == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_a_whole_number_is_the_same_however_it_was_typed():
    typed = dataclasses.replace(SPEC, objective={"ce": {"weight": 1}})
    assert typed.fingerprint == SPEC.fingerprint
    assert differences(typed, SPEC) == []


def test_the_order_of_keys_does_not_matter():
    turned = dataclasses.replace(SPEC, recipe={"lr": 0.1, "epochs": 3})
    assert turned.fingerprint == SPEC.fingerprint


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"recipe": {"epochs": 4, "lr": 0.1}}, "recipe.epochs"),
        ({"data": {"digest": "cd", "mean": [0.5]}}, "data.digest"),
        ({"model": {"use": "mlp.Mlp", "arguments": {"hidden": [9]}}}, "model.arguments.hidden"),
        ({"teachers": ("0123456789ab",)}, "teachers"),
        ({"precision": "bf16"}, "precision"),
        ({"compiled": True}, "compiled"),
        ({"numerics": 1}, "numerics"),
        ({"objective": {"ce": {"weight": 0.5}}}, "objective.ce.weight"),
    ],
)
def test_every_part_changes_the_fingerprint_and_is_named(change, key):
    other = dataclasses.replace(SPEC, **change)
    assert other.fingerprint != SPEC.fingerprint
    assert differences(SPEC, other) == [key]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_spec_survives_its_json(compiled):
    spec = dataclasses.replace(SPEC, compiled=compiled)
    assert Spec.from_json(spec.json()) == spec
    assert Spec.from_json(spec.json()).fingerprint == spec.fingerprint
    assert ("compiled" in spec.json()) is compiled  # what was trained before it could be asked for keeps its name


def test_a_number_that_json_lacks_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        _ = dataclasses.replace(SPEC, recipe={"lr": float("nan")}).fingerprint
