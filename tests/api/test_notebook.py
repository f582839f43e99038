"""The tutorial's notebook runs from top to bottom, and what its text claims is true of its numbers."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path_factory.mktemp("colab"))}}
    root = str(NOTEBOOK.parents[1])
    kernel = {
        **os.environ,
        "KDRUN_VERBOSE": "false",
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    notebook.cells.append(nbformat.v4.new_code_cell(CLAIMS))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
    return client.execute(env=kernel)


CLAIMS = """
import csv, json

rows = csv.DictReader((missing.folder / "missing.csv").open())
print(json.dumps({
    "entropy": list(entropy.values()),
    "missing": {row["role"]: float(row["with offset %"]) for row in rows},
    "to train": len(plan.to_train),
    "runs": [run.status for run in kdrun.runs()],
}))
"""


def test_what_the_notebook_claims_is_true_of_its_numbers(executed):
    claims = json.loads(executed.cells[-1].outputs[-1].text)
    assert claims["entropy"] == sorted(claims["entropy"]) and claims["entropy"][-1] < 2.31
    assert claims["missing"]["student"] > claims["missing"]["baseline"] + 20
    assert claims["to train"] == 0
    assert set(claims["runs"]) == {"done"}


def test_the_outputs_that_are_kept_are_small_and_without_paths_or_errors():
    text = NOTEBOOK.read_text()
    assert len(text) < 150_000 and "/tmp" not in text and "/home" not in text and '"error"' not in text
    cells = [cell for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) - 1  # it can be read without running it
