"""What may become of an input: read right or refused, in time, and no file or process outside of its folder.

One audit hook of Python's sees every file that is opened for writing, every process and every connection: what leaves
the folder of a trial is stopped before it happens, and counts as a failure.
"""

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 5.0  # seconds of computing
PATIENCE = 60.0  # seconds of waiting, as other processes may have the machine
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.truncate": 1, "os.chmod": 1,
           "os.symlink": 2, "os.link": 2}  # fmt: skip
"""Events that change what lies at a path, with how many of their arguments are paths."""
RUNNING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "socket.connect")


class Hang(BaseException):
    """An input took longer than it may; no reader catches this."""


class Escape(BaseException):
    """A reader wrote outside of the trial's folder, started a process or opened a connection."""


@dataclass
class _Watch:
    root: str | None = None
    events: list[str] = field(default_factory=list)


_watch = _Watch()


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watch.root is None:
        return
    paths: tuple[Any, ...] = ()
    if event == "open" and isinstance(args[2], int) and args[2] & WRITING:
        paths = args[:1]
    elif event in CHANGES:
        paths = args[: CHANGES[event]] if event != "os.symlink" else args[1:2]
    elif event in RUNNING:
        _stop(f"{event} {args[:2]!r}")
    for path in paths:
        if not isinstance(path, int) and path != os.devnull:
            place = os.path.realpath(os.fsdecode(path))
            if place != _watch.root and not place.startswith(_watch.root + os.sep):
                _stop(f"{event} {place}")


def _stop(what: str) -> None:
    _watch.events.append(what[:300])
    raise Escape(what[:300])


@contextlib.contextmanager
def watched(root: Path, limit: float):
    """Watch what leaves `root`, and end what computes longer than `limit` seconds."""
    if not hasattr(sys, "_kdrun_fuzz_hook"):
        sys.addaudithook(_audit)
        sys._kdrun_fuzz_hook = True
    logging.disable(logging.CRITICAL)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    before = [(number, signal.signal(number, _too_long)) for number in (signal.SIGALRM, signal.SIGPROF)]
    _watch.root, _watch.events = os.path.realpath(root), []
    signal.setitimer(signal.ITIMER_PROF, limit, 0.5)  # again, should something swallow the first
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, 0.5)
    try:
        yield _watch.events
    finally:
        _watch.root = None
        sys.dont_write_bytecode = bytecode
        logging.disable(logging.NOTSET)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)


def _too_long(number: int, frame: Any) -> None:
    if frame is not None and frame.f_code.co_name == "gc_callback":  # hypothesis's, out of which nothing can be raised
        return
    computed = number == signal.SIGPROF
    raise Hang("computed for too long" if computed else f"waited for {PATIENCE:g} s")


@dataclass(frozen=True)
class Verdict:
    """How an input was answered: "right", "other" (read, with other content), "refused" or "failed", and why."""

    answer: str
    reason: str = ""
    seconds: float = 0.0


def judge(kind, folder: Path, files: dict[str, bytes]) -> Verdict:
    """Lay files out in a folder that is empty then, read them as kdrun does, and judge the answer."""
    right = kind.right(folder)
    lay(folder, files)
    value: Any = None
    answer, reason = "read", ""
    started = time.perf_counter()
    with contextlib.chdir(folder), watched(folder, kind.limit) as escaped:
        try:
            value = kind.read(folder)
        except kind.refusals as error:
            answer, reason = "refused", f"{type(error).__name__}: {error}"
        except Hang as error:
            answer, reason = "failed", f"hang: {error}\n{traceback.format_exc(limit=-6)}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            answer, reason = "failed", f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
    seconds = time.perf_counter() - started
    if escaped:
        answer, reason = "failed", f"left its folder: {escaped[0]}"
    elif answer == "refused" and not _is_a_sentence(reason.partition(": ")[2]):
        answer, reason = "failed", f"refused without a sentence: {reason}"
    elif answer == "read":
        answer = "right" if value in right else "other"
        if answer == "other" and kind.sealed:
            answer, reason = "failed", "changed, and read as if it were right"
    return Verdict(answer, reason[:2000], seconds)


def _is_a_sentence(text: str) -> bool:
    return len(text.split()) >= 2 and "Traceback" not in text


def lay(folder: Path, files: dict[str, bytes]) -> None:
    """Empty a folder and write files into it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def taken(folder: Path) -> dict[str, bytes]:
    """Return the files in a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
