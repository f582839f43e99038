"""The banks of a training's teachers: tables that are read from disk, and written when the training ends.

The format is safetensors: it is memory-mapped when read, stores all torch dtypes with metadata, and is written without
a copy; NumPy's format has neither bfloat16 nor metadata. Rows depend on the environment that computed them. Like other
results in the store, a bank filled with another torch, device or number of threads is used all the same, and this is
logged.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kdrun import banks, console, faults
from kdrun.artifact import Artifact, read_result
from kdrun.banks import BankJson
from kdrun.files import RunFailed
from kdrun.spec import Spec
from kdrun.store import Store
from kdrun.training import devices
from kdrun.training.table import Table

log = logging.getLogger(__name__)
NETWORK = "model.safetensors"


class Bank:
    """The file of one teacher's logits for the views of one training's images."""

    def __init__(self, store: Store, artifact: Artifact, spec: Spec, views: int, images: int) -> None:
        self.store, self.artifact = store, artifact
        self.of = {
            "schema": banks.SCHEMA,
            "teacher": artifact.fingerprint,
            "weights": artifact.result["checksums"][NETWORK],
            "data": dict(spec.data),
            "precision": spec.precision,
            "compiled": spec.compiled,
            "batch_size": spec.recipe["batch_size"],
            "numerics": spec.numerics,
            "bank": dict(spec.bank),
        }
        self.views, self.images = views, images
        self.path = banks.place(artifact.folder, self.of)
        self.kept = 0  # rows in the file when it was last read or written
        self.environments: set[str] = set()  # those in which these rows were computed
        self.failed = False

    @property
    def complete(self) -> bool:
        """Whether the file has every row, according to its header."""
        content = banks.peek(self.path)
        return content is not None and content["known"] == self.views * self.images

    def fill(self, table: Table) -> None:
        """Add the file's rows to a table; if the file is damaged, log a warning, and let `keep` replace it."""
        try:
            content = self._read(table)
        except FileNotFoundError:
            return
        except (OSError, ValueError, SafetensorError) as error:
            reason = _reason(error, self.store.root)
            log.warning("teacher logits: the bank %s cannot be used (%s); they are computed anew", self.path, reason)
            return
        here = _environment(table.place.device)
        others = sorted(self.environments - {here})
        how = (
            f", computed by {' and by '.join(others)}: the last bits may differ from those of {here}" if others else ""
        )
        teacher = f"{self.artifact.result['role']} {self.artifact.result['model']} {self.artifact.fingerprint}"
        counts = f"{content['known']:,}", f"{self.views * self.images:,}"
        log.info("teacher logits: %s of %s from the bank of %s%s", *counts, teacher, how)

    def keep(self, table: Table) -> None:
        """Add a table's new rows, if there are any, to those in the file; log a warning if that is not possible.

        Two commands that fill the same bank lose nothing: under a lock, each also keeps the rows written by the other.
        """
        if self.failed or int(table.known.sum()) <= self.kept:
            return
        first = self.kept == 0
        try:
            with self.store.locked(f"{self.artifact.fingerprint}-{self.path.stem}", lambda: None):
                self._write(table)
        except (OSError, SafetensorError, RuntimeError) as error:  # no training fails because of its bank
            self.failed = True
            log.warning(
                "teacher logits: cannot be saved in %s (%s); this command goes on, but later ones compute them again",
                self.path,
                _reason(error, self.store.root),
            )
            return
        size, rows = console.size(self.path.stat().st_size), f"{self.kept:,} of {self.views * self.images:,}"
        level = logging.INFO if first else console.DETAIL
        log.log(level, "teacher logits: %s kept for other commands in %s (%s)", rows, self.path, size)

    def _read(self, table: Table) -> BankJson:
        """Add the file's rows to the table, and return what its header says. Raise ValueError if it is damaged."""
        content = banks.check(self.path)
        with safe_open(self.path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        table.add(tensors.pop("known"), tensors, content["classes"])
        self.kept, self.environments = content["known"], self.environments | set(content["environments"])
        return content

    def _write(self, table: Table) -> None:
        """Write the rows of the table and those of the file. The caller holds the lock."""
        result = read_result(self.artifact.folder)
        if result["checksums"].get(NETWORK) != self.of["weights"]:
            raise RunFailed("the teacher was trained anew meanwhile")
        folder = self.path.parent
        folder.mkdir(exist_ok=True)
        for stale in folder.glob(f".{self.path.stem}.*.tmp"):  # left by a killed command
            shutil.rmtree(stale, ignore_errors=True)
        with suppress(OSError, ValueError, SafetensorError):  # if there is no file yet, or it is damaged
            self._read(table)
            if int(table.known.sum()) == self.kept:
                return
        self.environments.add(_environment(table.place.device))
        content = BankJson(
            of=self.of,
            views=self.views,
            images=self.images,
            classes=table.classes,
            known=int(table.known.sum()),
            environments=sorted(self.environments),
        )
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{self.path.stem}.", suffix=".tmp") as scratch:
            temporary = Path(scratch, self.path.name)
            save_file(table.tensors(), temporary, banks.metadata(content))
            faults.reach("in_bank")
            shutil.copymode(self.artifact.folder / "spec.json", temporary)
            banks.commit(temporary, self.path)
        self.kept = content["known"]


def _reason(error: Exception, root: Path) -> str:
    """Return in words why a file cannot be read or written, with the free space if the disk is full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, SafetensorError) and (numbered := re.search(r"os error (\d+)", str(error))):
        code = int(numbered[1])
    what = str(error) if code is None else os.strerror(code)
    return f"{what}, {shutil.disk_usage(root).free / 1e6:.0f} MB free there" if code in full else what


def _environment(device: torch.device) -> str:
    count = torch.get_num_threads()
    threads = f" with {count} thread{'s'[: count != 1]}" if device.type == "cpu" else ""
    return f"torch {torch.__version__} on {devices.describe(device)}{threads}"
