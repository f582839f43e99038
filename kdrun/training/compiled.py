"""torch.compile: check that this machine can compile, and compile a network's calls.

The forward and backward passes of student and teacher are compiled at the training's batch shapes. Losses,
optimisers and evaluations are not. torch's compiler is imported when it is first needed.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from kdrun.checks import installed
from kdrun.files import RunFailed

log = logging.getLogger(__name__)
BACKEND = "inductor"  # tests use a backend that runs the traced graph without a C++ compiler
VARIANTS = 256  # recompilations per forward method (torch: 8): many networks share one, each with two batch shapes


def check(device: torch.device) -> None:
    """Raise ValueError, with what to install, if this machine cannot compile for `device`. Compile nothing."""
    if missing := _missing(device):
        raise ValueError(f"compile=true: {missing}; or leave compile out")


def _missing(device: torch.device) -> str | None:
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if device.type == "cuda" and not installed("triton"):
        return "torch.compile needs triton for a GPU, which is not installed: type pip install triton"
    usual = "clang++" if sys.platform == "darwin" else "g++"
    variable, names = ("CC", ("gcc", "clang", "cc")) if device.type == "cuda" else ("CXX", (usual,))
    compiler = os.environ.get(variable)
    if not any(shutil.which(name) for name in ((compiler,) if compiler else names)):
        kind = "C" if variable == "CC" else "C++"
        problem = f"{variable}={compiler} does not exist" if compiler else f"there is no {' or '.join(names)}"
        return f"torch.compile needs a {kind} compiler, and {problem}: install g++, or name one with {variable}="
    if not header.is_file():
        return f"torch.compile needs Python's headers, and there is no {header}: install python3-dev, or the equivalent"
    return None


def compile_forward(network: nn.Module) -> None:
    """Compile the calls of a network, in place; each batch shape is compiled when it first occurs.

    A direct call of `network.forward` is not compiled and no name in the state dict changes, so what is measured,
    saved, averaged or exported is not affected.
    """
    import torch._dynamo

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of a missing GPU on every CPU
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, VARIANTS)  # beyond the limit torch silently stops compiling
    network.compile(backend=BACKEND, dynamic=False)


@contextmanager
def report_compilation(compiled: bool) -> Iterator[None]:
    """Log that compilation takes time, and raise RunFailed if it fails within this context."""
    if compiled:
        log.info("compiling each network at its first batch: this takes seconds to minutes for each")
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        log.debug("torch.compile failed", exc_info=error)
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise RunFailed(f"torch.compile failed ({type(error).__name__}: {reason}); type compile=false") from error
