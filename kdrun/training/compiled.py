"""torch.compile: what it needs of a machine, and how a network's calls go through it.

Compiled are the forward and backward pass of student and teacher at the training's batch shapes, nothing else:
losses, optimisers and evaluations stay as they are. torch's compiler is imported when it is first wanted.
"""

from __future__ import annotations

import importlib.util
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

from kdrun.store import RunFailed

log = logging.getLogger(__name__)
BACKEND = "inductor"  # "eager" runs what was traced as it stands: the tests' way to go without a C++ compiler
VARIANTS = 256  # per forward method, where torch stops at 8: two batch shapes for each architecture that shares it


def check(device: torch.device) -> None:
    """Raise ValueError, with what to install, where a machine could not compile for `device`; costs nothing."""
    if missing := _missing(device):
        raise ValueError(f"compile=true: {missing}; or leave compile out")


def _missing(device: torch.device) -> str | None:
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile needs triton for a GPU, which is not installed: type pip install triton"
    own, names = ("CC", ("gcc", "clang", "cc")) if device.type == "cuda" else ("CXX", (_usual_compiler(),))
    asked = os.environ.get(own)
    if not any(shutil.which(name) for name in ((asked,) if asked else names)):
        kind = "C" if own == "CC" else "C++"
        there = f"{own}={asked} is not there" if asked else f"there is no {' or '.join(names)}"
        return f"torch.compile needs a {kind} compiler, and {there}: install g++, or name one with {own}="
    if not header.is_file():
        return f"torch.compile needs Python's headers, and there is no {header}: install python3-dev, or its like"
    return None


def _usual_compiler() -> str:
    return "clang++" if sys.platform == "darwin" else "g++"


def compile_forward(network: nn.Module) -> None:
    """Let the calls of a network run compiled from now on.

    Its `forward`, called by that name, does not, and no name in its state changes: what is measured, saved,
    averaged or exported never meets the compiler. Each batch shape is compiled once, when it first comes.
    """
    import torch._dynamo

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns of a missing GPU on every CPU
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, VARIANTS)  # beyond it, torch would silently not compile
    network.compile(backend=BACKEND, dynamic=False)


@contextmanager
def report_compilation(compiled: bool) -> Iterator[None]:
    """Say what takes so long where networks are compiled, and turn what fails there into RunFailed."""
    if compiled:
        log.info("compiling the networks as their first batches come: that takes seconds to minutes for each")
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        log.debug("torch.compile failed", exc_info=error)
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        raise RunFailed(f"torch.compile failed ({type(error).__name__}: {said}); type compile=false") from error
