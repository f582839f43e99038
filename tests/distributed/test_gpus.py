"""On GPUs BatchNorm too takes the statistics of the whole batch, so that any network trains as in one process."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.distributed.conftest import Desk, assert_alike

TRAINING = [
    "train", "baseline", "student=digits_teacher", "transfer.fraction=0.3333", "seeds=1", "recipe.epochs=2",
    "recipe.batch_size=33", "recipe.lr=0.01", "device=cuda",
]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_a_network_with_batchnorm_as_one_does(tmp_path):
    desks = [Desk(None, tmp_path / name) for name in ("one", "two")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for desk, start in zip(desks, ([], launcher), strict=True):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *start, "-m", "kdrun", *TRAINING], cwd=desk.folder, env=env, check=True)
    assert_alike(*desks, tolerance=1e-3, ties=0.02)
    (result,) = desks[1].folder.glob("outputs/store/*/result.json")
    assert json.loads(result.read_text())["ranks"] == 2
