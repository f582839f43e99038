"""The check of a command's networks before anything trains, which the cells of a sweep share."""

from dataclasses import replace

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

    def builds(request):
        before = len(built)
        check.check([Entry("baseline", request)], torch.device("cpu"))
        return len(built) - before

    def wide(width):
        return request_for(model={**STUDENT, "arguments": {**STUDENT["arguments"], "hidden": [width]}})

    adopted = request_for()
    adopted = replace(adopted, spec=replace(adopted.spec, recipe={"adopted": "the content of a file"}, objective={}))
    assert builds(request_for(model=TEACHER)) == builds(adopted) == 1
    assert [builds(wide(width)) for width in range(1, check.KEPT + 1)] == [1] * check.KEPT
    assert builds(wide(1)) == 0 and builds(wide(100)) == 1  # the one used last stays, the oldest is dropped
    assert builds(wide(1)) == 0 and builds(wide(2)) == 1 and len(check._built) == check.KEPT
