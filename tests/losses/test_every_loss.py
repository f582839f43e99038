"""What holds for every loss in conf/loss, those of tomorrow included."""

import inspect
import re
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from kdrun.losses import build, contract, find
from kdrun.verbs.losses import FAMILIES

from .given import CONF, NAMES, arguments, node

every_loss = pytest.mark.parametrize("name", NAMES)


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
            default = parameter.default
            assert keys[key] == (list(default) if isinstance(default, tuple) else default), key


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
@pytest.mark.parametrize("title", contract.CHECKS)
def test_it_keeps_the_contract(name: str, title: str) -> None:
    try:
        assert contract.CHECKS[title](contract.Subject(name, node(name))) is None
    except contract.NotApplicable as reason:
        pytest.skip(str(reason))
