"""kdrun losses: the losses that loss=NAME chooses."""

from __future__ import annotations

from collections.abc import Sequence

from kdrun.config import said
from kdrun.results.tables import Table
from kdrun.verbs.listing import description, files, node, words


def main(rest: Sequence[str]) -> int:
    """Print the list with each loss's settings and their defaults."""
    words("losses", rest)
    rows = []
    for name, path in files("loss").items():
        settings = " ".join(f"{key}={said(value)}" for key, value in node(path, name).items() if key != "use")
        rows.append([name, description(path), settings])
    notes = [
        "settings are typed as loss.NAME.KEY=VALUE; ${alpha} and ${T} follow the root keys alpha and T",
        "several add up: 'loss=[kd,mse_logits]'; the labels' cross-entropy is loss.ce (loss.ce.weight)",
    ]
    print(Table(["name", "what it is", "settings"], rows, notes=notes).to_text())
    return 0
