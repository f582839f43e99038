"""A command that torchrun started in several processes: rank 0 runs it, the others take part in its trainings."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from kdrun import signals
from kdrun.files import RunFailed
from kdrun.signals import Interrupted, StopFlag
from kdrun.store import Store
from kdrun.training import devices, distributed, jobs
from kdrun.training.distributed import Ranks
from kdrun.training.settings import Settings
from kdrun.training.trainer import Trainer

log = logging.getLogger(__name__)


def run(command: Callable[[], int]) -> int:
    """Run the command on rank 0 and follow it on the other ranks. Return the exit code of this process."""
    ranks = distributed.join()
    code = _lead(ranks, command) if ranks.leads else _follow(ranks)
    if ranks.broken:  # other ranks may hang in a collective, and a clean shutdown would hang with them
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    dist.destroy_process_group()
    return code


def _lead(ranks: Ranks, command: Callable[[], int]) -> int:
    try:
        code = command()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except KeyboardInterrupt:
        code = signals.INTERRUPTED
    except Exception:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(RunFailed):  # raised if the other ranks are gone or out of step
        ranks.send(None)
    return code


def _follow(ranks: Ranks) -> int:
    """Take part in the trainings of rank 0 until it has no more; log errors only."""
    logging.basicConfig(level=logging.ERROR, format=f"kdrun, process {ranks.rank}: %(message)s")
    logging.captureWarnings(True)
    try:
        with StopFlag() as stop:
            while (job := jobs.receive(ranks)) is not None:
                device = devices.resolve_device("cuda" if job.cuda else "cpu")
                try:
                    Trainer(Settings(Store(Path(os.devnull)), device, stop, workers=job.workers)).assist(job.requests)
                except Interrupted:
                    log.debug("rank 0 has saved, and says what comes next")
    except Interrupted:  # a signal came while nothing was trained
        pass
    except Exception as error:
        if distributed.gone(error.__cause__ or error):
            log.error("another process has ended, or does not answer: this one ends too")
        else:
            log.exception("%s: %s", type(error).__name__, error)
        ranks.broken = str(error)
        return 3
    return 0
