"""What α weighs differs from code to code; every convention is a pair of weights here."""

import pytest
import torch.nn.functional as F

from kdrun.losses import build

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
