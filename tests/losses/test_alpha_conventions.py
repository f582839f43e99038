"""What α weighs differs from code to code; every convention is a pair of weights here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from hydra.core.hydra_config import HydraConfig

from kdrun import config
from kdrun.command import groups, preflight
from kdrun.losses import build
from kdrun.plan import dry_run
from kdrun.plan.objective import objective

from .given import ZS, ZT, Y, batch, node, outputs

CE = 3.1347706165  # of the golden inputs
KD4 = 2.8564529605  # 4²·KL at T=4
SOFT_CE2 = 7.2254282423  # 2²·soft cross-entropy at T=2


def ce(weight: float) -> dict[str, object]:
    return {"use": "ce.CE", "weight": weight}


@pytest.mark.parametrize(
    ("terms", "formula", "expected"),
    [
        pytest.param(
            {"ce": ce(1 - 0.9), "kd": node("kd", T=4, alpha=0.9)},
            "0.1·CE(y, p_s) + 0.9·4²·KL(p_t ‖ p_s; T=4)",
            2.8842847261,
            id="ours: α weighs the teacher",
        ),
        pytest.param(
            {"ce": ce(0.3), "kd": node("kd", T=4, alpha=1 - 0.3)},
            "0.3·CE(y, p_s) + 0.7·4²·KL(p_t ‖ p_s; T=4)",
            0.3 * CE + 0.7 * KD4,
            id="torchdistill: α=0.3 weighs the labels",
        ),
        pytest.param(
            {"ce": ce(0.1), "soft_ce": node("soft_ce", T=2, alpha=1 - 0.1)},
            "0.1·CE(y, p_s) + 0.9·2²·CE(p_t, p_s; T=2)",
            0.1 * CE + 0.9 * SOFT_CE2,
            id="soft cross-entropy, α=0.1 weighs the labels",
        ),
        pytest.param(
            {
                "ce": ce(1),
                "kd": node("kd", T=4, alpha=0.9),
                "mse_logits": node("mse_logits") | {"weight": 0.8},
            },
            "CE(y, p_s) + 0.9·4²·KL(p_t ‖ p_s; T=4) + 0.8·MSE(z_t, z_s)",
            CE + 0.9 * KD4 + 0.8 * 6.5853032885,
            id="CRD: γ=1, α=0.9, β=0.8 on another term",
        ),
        pytest.param(
            {"ce": ce(1), "kd": node("kd", T=10, alpha=0.1) | {"T_squared": False}},
            "CE(y, p_s) + 0.1·KL(p_t ‖ p_s; T=10)",
            CE + 0.1 * float(F.kl_div((ZS / 10).log_softmax(1), (ZT / 10).softmax(1), reduction="batchmean")),
            id="CE + 0.1·KL, T=10 and no T²",
        ),
        pytest.param(
            {"ce": ce(0.5), "kd": node("kd", T=4, alpha=0.5) | {"student_T": 1}},
            "0.5·CE(y, p_s) + 0.5·KL(p_t(T=4) ‖ p_s(T=1))",
            0.5 * CE + 0.5 * 0.8507274158,
            id="teacher at T=4, student at T=1",
        ),
    ],
)
def test_a_convention_is_expressed_by_its_weights(
    terms: dict[str, dict[str, object]], formula: str, expected: float
) -> None:
    objective = build(terms)
    total, values = objective(outputs(ZS), [outputs(ZT)], batch(Y))
    assert objective.formula() == formula
    assert float(total) == pytest.approx(expected, rel=1e-9)
    assert list(values) == list(terms)
    assert float(values["ce"]) == pytest.approx(CE, rel=1e-9)  # reported unweighted


def weights(*words: str, dirs: tuple[Path, ...] = (config.CONF,)) -> Mapping[str, Any]:
    """What the terms of a command weigh; what is refused instead is raised."""
    groups.register(dirs)
    checked = preflight.check("distill", words, sweep=False, dirs=dirs)
    if problems := [*checked.problems, *dry_run.problems("distill", checked.cells, losses=True, networks=False)]:
        raise ValueError("\n".join(problems))
    HydraConfig.instance().set_config(checked.cells[0].cfg)
    terms = objective(checked.cells[0].values, {})
    assert not any("weighed_by" in node for node in terms.values())  # which would make other fingerprints
    return build(terms).weights


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["alpha=0.8"], {"ce": 0.2, "kd": 0.8}),
        (["alpha=0.8", "loss=[kd,soft_ce,mse_logits]"], {"ce": 0.2, "kd": 0.8, "soft_ce": 0.8, "mse_logits": 0.8}),
        (["alpha=0.8", "loss=[kd,crd]"], {"ce": 1.0, "kd": 0.8, "crd": 0.8}),
        (["loss.kd.weight=0.3"], {"ce": 1.0, "kd": 0.3}),
        (["loss.kd.weight=0.9"], {"ce": 1.0, "kd": 0.9}),  # alpha's own value, but typed
        (["loss.kd.weight=null", "alpha=0.8"], {"ce": 0.2, "kd": 0.8}),
        (["loss=ls"], {"ce": 0.1, "ls": 9.0}),
        (["loss=[ls,kd]"], {"ce": 1.0, "ls": 9.0, "kd": 0.9}),
        (["loss.ce.weight=0.5"], {"ce": 0.5, "kd": 0.9}),
        (["alpha=0"], {"ce": 1.0}),
        (["alpha=1", "transfer.labels=false"], {"kd": 1.0}),
    ],
)
def test_the_labels_weigh_what_alpha_leaves_where_it_weighs_every_loss(words: list[str], expected: object) -> None:
    assert weights(*words) == expected


@pytest.mark.parametrize(
    ("weight", "answer"),
    [
        ("null\nweighed_by: alpha", None),
        ("${alpha}", r"loss\.mine\.weight=\$\{alpha\}: write weight: null and weighed_by: alpha"),
        ("null\nweighed_by: T", r"loss\.mine\.weighed_by=T: choose alpha"),
        ("null", r"loss\.mine: weight missing"),
    ],
)
def test_a_loss_of_ones_own_says_by_a_key_that_alpha_weighs_it(tmp_path: Path, weight: str, answer: str | None) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text(f"# @package loss.mine\nuse: kd.KD\nweight: {weight}\nT: 2.0\n")
    if answer is None:
        assert weights("loss=mine", "alpha=0.8", dirs=(tmp_path, config.CONF)) == {"ce": 0.2, "mine": 0.8}
    else:
        with pytest.raises(ValueError, match=answer):
            weights("loss=mine", dirs=(tmp_path, config.CONF))
