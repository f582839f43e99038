"""The benchmark for a GPU works before there is one: its tiny version runs on any device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_every_part_of_the_benchmark_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, GPU, "--smoke", "--json", tmp_path / "found.json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "found.json").read_text())
    for part in ("peak_tflops", "step", "at_work", "epoch_seconds", "cohort"):
        assert "failed" not in record[part], record[part]
    assert record["cohort"]["students"]["1"]["gain"] == 1
    assert "launch-bound" in done.stdout and "2 students" in done.stdout


def test_without_a_gpu_it_says_what_to_type():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, GPU], capture_output=True, text=True)
    assert done.returncode == 2 and "--smoke" in done.stderr
