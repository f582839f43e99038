"""Too little memory: a row that says so, with what to type, and the other cells of the sweep go on."""

import errno
import json
import subprocess
import sys

import pytest
import torch

from kdrun import memory
from tests.faults.conftest import SMALL
from tests.warm import environment

# RLIMIT_AS bounds addresses, of which libraries take many before any image is read: it is set on top of those.
LIMITED = """
import resource, sys
import psutil, scipy.stats, torch, torch._dynamo
room = psutil.Process().memory_info().vms + 600 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (room, room))
from kdrun.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_cell_that_does_not_fit_into_memory_says_oom_and_the_other_cells_are_trained(taught):
    words = [word for word in SMALL if not word.startswith("student.hidden")]
    command = [sys.executable, "-c", LIMITED, "distill", "-m", "student.hidden=[40000,4000],[16]", *words]
    done = subprocess.run(
        [*command, "device=cpu", "workers=0"],
        cwd=taught.folder,
        env=environment(PYTHONPATH=":".join(sys.path)),
        capture_output=True,
        text=True,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 3 and "Traceback" not in printed, printed
    cells = json.loads((taught.latest / "sweep.json").read_text())["cells"]
    assert [cell["status"] for cell in cells] == ["oom", "done"], printed
    assert "out of memory" in cells[0]["reason"] and "(peak " in cells[0]["reason"]
    assert "recipe.batch_size=28" in cells[0]["reason"]
    assert "oom" in (taught.latest / "sweep.md").read_text()


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_ran_out(error, ran_out):
    assert memory.ran_out(error) is ran_out
