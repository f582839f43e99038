"""The measures of a network beyond accuracy: how each is named and written, and whether less of it is better."""

from __future__ import annotations

from dataclasses import dataclass

from kdrun.results.statistics import Summary
from kdrun.results.tables import per_cent, written


@dataclass(frozen=True)
class Measure:
    """One measure: its heading, how it is written, and whether less of it is better (None: neither)."""

    key: str
    heading: str
    share: bool  # in [0, 1], written in per cent
    less: bool | None
    about: str = ""

    def written(self, value: Summary | float | None, *, signed: bool = False) -> str:
        """Write a number as tables show it; a single network's number of epochs has no decimals."""
        if self.share:
            return per_cent(value, signed=signed)
        one = isinstance(value, Summary) and value.n == 1
        return written(value, (0 if one else 1) if self.key.startswith("epochs") else 4, signed=signed)


MEASURES = [
    Measure("test_nll", "NLL", False, True, "NLL: mean negative log-likelihood in nats"),
    Measure("ece", "ECE %", True, True, "ECE: expected calibration error, 15 bins of equal width"),
    Measure("balanced_accuracy", "balanced %", True, False, "balanced: mean accuracy over classes"),
    Measure("macro_f1", "macro F1 %", True, False),
    Measure("top5_accuracy", "top-5 %", True, False),
    Measure("agreement", "agree %", True, None, "agree: predicts the teacher's class, right or wrong"),
    Measure("kl_to_teacher", "KL", False, None, "KL: KL(teacher ‖ network) at T=1 in nats; fidelity is not accuracy"),
    Measure("epochs_to_90", "to 90%", False, True),
    Measure("epochs_to_95", "to 95%", False, True, "to 90, 95, 99%: epochs to that share of the final validation "
            "accuracy"),
    Measure("epochs_to_99", "to 99%", False, True),
    Measure("unsteadiness", "swing %", True, True, "swing: standard deviation of the last third of the validation "
            "curve, in points"),
]  # fmt: skip
BY_KEY = {measure.key: measure for measure in MEASURES}
