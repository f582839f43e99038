"""Starts kdrun processes quickly: torch is imported once, then every command is a fork of this process.

One JSON object per line comes in on stdin, one goes out on stdout: {"argv", "env", "cwd", "out", "err", "user"} starts
a command and gives {"pid"}; {"wait": pid} waits for it and gives {"code"}. The children are processes of their
own: they are killed and signalled for real, and share no state with each other. Nothing is computed here
before a fork, so torch has no threads that a child would miss.
"""

import ctypes
import json
import logging
import os
import signal
import sys

import hydra  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import safetensors.torch  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch._dynamo  # noqa: F401  (what making an optimiser imports)


def become(uid, gid):
    """Be another user with a umask of 002: one who may read everything, as Python may lie in root's home."""
    libc = ctypes.CDLL(None)
    os.umask(0o002)
    os.setgroups([])
    os.setgid(gid)
    libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setuid(uid)
    read_all = 1 << 2  # CAP_DAC_READ_SEARCH
    libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(read_all, read_all, 0, 0, 0, 0))


def child(job):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(300)  # a command that hangs ends so, with -14
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    for number, file in ((1, job["out"]), (2, job["err"])):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if job["user"]:
        become(*job["user"])
    code = 1
    try:
        import kdrun.cli  # ours begins with the command: it remembers when it started

        kdrun.cli.main(job["argv"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        answer = {"code": os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])}
    else:
        pid = os.fork()
        if pid == 0:
            child(job)
        answer = {"pid": pid}
    print(json.dumps(answer), flush=True)
