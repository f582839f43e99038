"""Commands off a warm interpreter: processes of their own, without the two seconds that importing torch takes."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

DROPPED = ("KDRUN_OUTPUTS", "KDRUN_FAULT", "HYDRA_")


def environment(**variables):
    """Return what a command that a test starts finds: what these tests have, without what would lead it elsewhere."""
    return {key: value for key, value in os.environ.items() if not key.startswith(DROPPED)} | variables


class Server:
    """Forks commands off one interpreter that has torch (see warm_server.py); it ends with this process."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            # TORCH_CPP_LOG_LEVEL as the command line sets it before torch is imported
            env=environment(TORCH_CPP_LOG_LEVEL="ERROR"),
        )

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, argv, cwd, out, err=None, user=None, **variables):
        """Start a command that prints to files, perhaps as another user (uid, gid); give its process number."""
        where = {"cwd": str(cwd), "out": str(out), "err": str(err or out), "user": user}
        return self.ask(argv=list(argv), env=environment(**variables), **where)["pid"]

    def wait(self, pid):
        """Wait for a command; give its exit code (minus the signal's number where one killed it)."""
        return self.ask(wait=pid)["code"]


@functools.cache
def server():
    """One warm interpreter for all tests of this process."""
    return Server()


def type_(folder, *words, user=None, **variables):
    """Type a command in a folder and wait for its end; give it with what it printed."""
    with tempfile.TemporaryDirectory() as scratch:
        out, err = Path(scratch, "out"), Path(scratch, "err")
        code = server().wait(server().start(words, folder, out, err, user, **variables))
        return subprocess.CompletedProcess(["kdrun", *words], code, out.read_text(), err.read_text())
