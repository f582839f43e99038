"""The check of a command's networks before anything trains, which the cells of a sweep share."""

import torch

from kdrun.plan import check
from kdrun.plan.waves import Entry
from kdrun.training.networks import build_model
from tests.training.conftest import STUDENT, TEACHER


def test_a_network_is_built_once_for_all_cells_and_each_cell_logs_what_is_remarkable(request_for, monkeypatch, caplog):
    built = []

    def build(spec, **settings):
        module = build_model(spec, **settings)
        module.remarks = ("is odd",)
        built.append(spec.model)
        return module

    monkeypatch.setattr(check, "_built", {})
    monkeypatch.setattr(check, "build_model", build)
    for seed in (0, 1):
        with caplog.at_level("INFO", logger="kdrun"):
            check.check([Entry("baseline", request_for(seed=seed))], torch.device("cpu"))
    assert len(built) == 1 and [line.endswith("is odd") for line in caplog.messages] == [True, True]
    check.check([Entry("baseline", request_for(model=TEACHER))], torch.device("cpu"))
    for width in range(1, check.KEPT + 1):
        other = {**STUDENT, "arguments": {**STUDENT["arguments"], "hidden": [width]}}
        check.check([Entry("baseline", request_for(model=other))], torch.device("cpu"))
    assert len(built) == 2 + check.KEPT and len(check._built) == check.KEPT
