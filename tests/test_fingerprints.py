"""The fingerprints of trainings that people have in their stores: a new setting must not change any of them."""

from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from kdrun import config
from kdrun.command import groups, preflight
from kdrun.plan.requests import RequestBuilder
from kdrun.plan.waves import waves
from kdrun.store import Store

COSINE = "dataset=synthetic recipe=cosine recipe.ema_decay=null student=resnet8 teacher=resnet14"
KNOWN = {  # as they were in November 2026, in the order of the trainings
    "": "52b41de56956 fb8ccbe1d5fe 8ccaacbe8bb0",
    "loss=dkd recipe.epochs=5": "52b41de56956 9c8e14a1ad87 abaea43b8ccd",
    "loss=[kd,crd] transfer.fraction=0.5": "52b41de56956 456c11a4d46e 36bfdc96aca8",
    "loss=dml": "fb8ccbe1d5fe 0884d35236e9 f7dc926353ee 708ce5d238aa",
    "generations=2": "52b41de56956 c1df5702d8f1 3bd52c3c5e15 ebb1bd688799",
    COSINE: "72f02de6ac45 a800fc2669e3 6c9d51c5004a",
    "dataset=synthetic recipe=cifar_240 student=resnet8": "3a08f17a3a2e",
    "dataset=synthetic recipe=finetune student=resnet8": "50d1e5d75a06",
}


@pytest.mark.parametrize("words", KNOWN)
def test_no_setting_that_came_later_changes_a_fingerprint(words, tmp_path):
    groups.register([config.CONF])
    (cell,) = preflight.check("distill", [*words.split(), "seeds=1"], sweep=False, dirs=[config.CONF]).cells
    HydraConfig.instance().set_config(cell.cfg)
    builder = RequestBuilder.read("distill", cell.cfg, cell.cfg.hydra.runtime.choices, torch.device("cpu"))
    fingerprints = [entry.spec.fingerprint for wave in waves(builder, Store(Path(tmp_path))) for entry in wave]
    assert [fingerprint for fingerprint in fingerprints if fingerprint in KNOWN[words]] == KNOWN[words].split()


def test_only_what_averages_its_weights_has_a_mark_of_its_own(tmp_path):
    groups.register([config.CONF])
    recipes = {}
    for decay in ("0.99", "auto", "null"):
        given = ["dataset=synthetic", "recipe=cosine", "student=resnet8", f"recipe.ema_decay={decay}"]
        (cell,) = preflight.check("train_baseline", given, sweep=False, dirs=[config.CONF]).cells
        HydraConfig.instance().set_config(cell.cfg)
        request = RequestBuilder.read(
            "train_baseline", cell.cfg, cell.cfg.hydra.runtime.choices, torch.device("cpu")
        ).baseline(0)
        recipes[decay] = request.spec.recipe
        steps = 60 * -(-len(request.sets.train) // 128)
    assert {decay: recipe.get("ema") for decay, recipe in recipes.items()} == {"0.99": 2, "auto": 2, "null": None}
    assert recipes["0.99"]["ema_decay"] == 0.99  # what is typed is taken
    assert recipes["auto"]["ema_decay"] == pytest.approx(min(0.998, 1 - 1 / (0.1 * steps)), abs=1e-6) != 0.998
    assert not {"class_weights", "select"} & recipes["null"].keys()
