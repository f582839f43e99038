"""What holds for every loss in conf/loss, those of tomorrow included."""

import inspect
import re
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from kdrun.losses import build, find
from kdrun.losses.base import Objective, Term
from kdrun.models.base import Outputs
from kdrun.verbs.losses import FAMILIES

from .given import CONF, NAMES, ZS, ZT, Y, arguments, batch, node, outputs, setting

every_loss = pytest.mark.parametrize("name", NAMES)


def prepared(name: str, student: Outputs, teacher: Outputs, **changes: object) -> Objective:
    torch.manual_seed(0)  # some draw as they compare
    objective = build({name: node(name) | {"weight": 1.0} | changes})
    objective.prepare(student, [teacher], setting(8), seed=0)
    return objective.double() if student.logits.dtype == torch.float64 else objective


def tensors(given: Outputs) -> list[Tensor]:
    return [given.logits, *given.features.values(), *given.preactivations.values(), given.embedding]


def leaves(given: Outputs) -> Outputs:
    """The same outputs, each a leaf that would collect its gradient."""

    def leaf(x: Tensor) -> Tensor:
        return x.detach().clone().requires_grad_()

    features = {name: leaf(x) for name, x in given.features.items()}
    preactivations = {name: leaf(x) for name, x in given.preactivations.items()}
    return Outputs(leaf(given.logits), features, preactivations, leaf(given.embedding))


def in_float32(given: Outputs) -> Outputs:
    """The same values, exactly, in float32."""
    features = {name: x.float() for name, x in given.features.items()}
    preactivations = {name: x.float() for name, x in given.preactivations.items()}
    return Outputs(given.logits.float(), features, preactivations, given.embedding.float())


def test_there_are_losses_to_test() -> None:
    assert {"kd", "reverse_kd", "soft_ce", "mse_probs", "mse_logits"} <= set(NAMES)


@every_loss
def test_the_keys_of_the_yaml_are_use_weight_and_the_constructors_arguments(name: str) -> None:
    signature = inspect.signature(find(node(name)["use"]))
    assert list(node(name))[:2] == ["use", "weight"]
    assert list(arguments(name)) == list(signature.parameters)


@every_loss
def test_the_defaults_of_the_yaml_are_the_constructors_where_it_has_any(name: str) -> None:
    keys = node(name)
    if keys["use"].partition(".")[0] != name:
        pytest.skip("a variant of another file's term: the YAML of that name has the constructor's defaults")
    for key, parameter in inspect.signature(find(keys["use"])).parameters.items():
        if parameter.default is not parameter.empty:
            assert keys[key] == parameter.default, key


@every_loss
def test_the_yaml_opens_with_its_package_and_one_line_of_name_formula_and_source(name: str) -> None:
    lines = (CONF / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# @package loss.{name}"
    assert re.fullmatch(r"# [^:]+: .+ \(.+\)", lines[1])
    assert lines[2].removeprefix("# family: ") in FAMILIES


def test_all_losses_together_compose_under_their_names_with_the_roots_temperature_and_alpha(
    tmp_path: Path,
) -> None:
    shutil.copytree(CONF, tmp_path / "loss")
    (tmp_path / "main.yaml").write_text("defaults: [loss: kd, _self_]\nT: 4.0\nalpha: 0.9\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        cfg = compose("main", [f"loss=[{','.join(NAMES)}]", "T=3", "alpha=0.25", "loss.kd.student_T=1"])
    terms: dict[str, dict[str, object]] = OmegaConf.to_container(cfg.loss, resolve=True)  # type: ignore[assignment]
    assert sorted(terms) == NAMES
    for keys in terms.values():
        keys["weight"] = cfg.alpha if keys.pop("weighed_by", None) else keys["weight"]
    assert "0.25·KL(p_t(T=3) ‖ p_s(T=1)) + " in build(terms).formula()
    assert "0.25·MSE(z_t, z_s) + " in build(terms).formula()


@every_loss
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    student, teacher = leaves(outputs(ZS, width=3)), leaves(outputs(ZT, width=5))
    total, _ = prepared(name, student, teacher)(student, [teacher], batch(Y))
    total.backward()
    assert any(x.grad is not None and x.grad.abs().max() > 0 for x in tensors(student))
    assert all(x.grad is None for x in tensors(teacher))


@every_loss
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    student, teacher = leaves(outputs(ZS, width=3)), outputs(ZT, width=5)
    objective = prepared(name, student, teacher)
    if any(term.banks for term in objective.modules() if isinstance(term, Term)):
        pytest.skip("each step changes what this one remembers: its own test freezes that")

    def loss(*values: Tensor) -> Tensor:
        logits, embedding, *maps = values
        n = len(student.features)
        features, before = maps[:n], maps[n:]
        given = Outputs(
            logits,
            dict(zip(student.features, features, strict=True)),
            dict(zip(student.preactivations, before, strict=True)),
            embedding,
        )
        total: Tensor = objective(given, [teacher], batch(Y))[0]
        return total

    inputs = (student.logits, student.embedding, *student.features.values(), *student.preactivations.values())
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher = outputs(ZS.to(dtype), width=3), outputs(ZT.to(dtype), width=5)
    half = prepared(name, student, teacher)(student, [teacher], batch(Y))[0]
    student, teacher = in_float32(student), in_float32(teacher)
    full = prepared(name, student, teacher)(student, [teacher], batch(Y))[0]
    assert half.dtype == torch.float32
    assert torch.equal(half, full)


@every_loss
def test_float64_stays_float64(name: str) -> None:
    student, teacher = outputs(ZS, width=3), outputs(ZT, width=5)
    assert prepared(name, student, teacher)(student, [teacher], batch(Y))[0].dtype == torch.float64


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("T", [0.05, 1.0, 100.0])
def test_value_and_gradient_stay_finite_for_logits_of_ten_thousand(name: str, dtype: torch.dtype, T: float) -> None:
    signs = torch.tensor([[1.0, -1, 1, -1], [-1, 1, 1, 1], [1, 1, 1, 1]], dtype=dtype)
    zs, zt = (1e4 * signs).requires_grad_(), 1e4 * signs.flip(1)
    temperature = {"T": T} if "T" in node(name) else {}
    student, teacher = outputs(zs, width=3), outputs(zt, width=5)
    total, _ = prepared(name, student, teacher, **temperature)(student, [teacher], batch(Y[:3]))
    assert total.isfinite()
    if total.requires_grad:  # of the others, the next test sees the maps
        total.backward()
        assert zs.grad is None or zs.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1e2, 1e4])
def test_value_and_gradient_stay_finite_for_maps_of_any_size(name: str, dtype: torch.dtype, scale: float) -> None:
    def scaled(given: Outputs) -> Outputs:
        features = {key: x * scale for key, x in given.features.items()}
        before = {key: x * scale for key, x in given.preactivations.items()}
        return leaves(Outputs(given.logits, features, before, given.embedding * scale))

    student, teacher = scaled(outputs(ZS.to(dtype), width=3)), scaled(outputs(ZT.to(dtype), width=5))
    total, _ = prepared(name, student, teacher)(student, [teacher], batch(Y))
    total.backward()
    assert total.isfinite()
    assert all(x.grad.isfinite().all() for x in tensors(student) if x.grad is not None)


@every_loss
def test_nothing_waits_for_the_device(name: str) -> None:
    """Tensors without data: whatever asked one for its value would raise."""
    student, teacher = outputs(ZS.to("meta"), width=3), outputs(ZT.to("meta"), width=5)
    objective = prepared(name, outputs(ZS, width=3), outputs(ZT, width=5)).to("meta")
    total, _ = objective(student, [teacher], batch(Y.to("meta")))
    assert total.shape == ()


@every_loss
def test_labels_are_read_only_by_a_term_that_says_so(name: str) -> None:
    student, teacher = outputs(ZS, width=3), outputs(ZT, width=5)
    objective = prepared(name, student, teacher)
    if objective.needs_labels:
        pytest.skip("this one says so")
    poisoned = torch.tensor([10**9, -(10**9), 5, -2])
    value = objective(student, [teacher], batch(Y))[0]
    assert torch.equal(prepared(name, student, teacher)(student, [teacher], batch(poisoned))[0], value)


@every_loss
def test_what_the_teacher_and_the_student_say_is_not_written_into(name: str) -> None:
    student, teacher = leaves(outputs(ZS, width=3)), leaves(outputs(ZT, width=5))
    objective = prepared(name, student, teacher)
    # as from a network, where a write raises no error: none of these is a leaf
    copies = [Outputs(o.logits + 0, *[{n: x + 0 for n, x in m.items()} for m in o[1:3]], o.embedding + 0) for o in
            (student, teacher)]  # fmt: skip
    before = [x.detach().clone() for o in copies for x in tensors(o)]
    objective(copies[0], [copies[1]], batch(Y))[0].backward()
    assert all(torch.equal(x, y) for x, y in zip(before, [x for o in copies for x in tensors(o)], strict=True))
