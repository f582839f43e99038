"""Which process a record names, and whether it lives: told by real processes."""

import json
import subprocess
import sys

from kdrun import process


def test_this_process_lives():
    assert not process.gone(process.this())


def test_a_process_that_ended_is_gone_reaped_or_not():
    code = "import json; from kdrun import process; print(json.dumps(process.this()))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    named = json.loads(child.stdout.read())  # ends with the process, which nobody has waited for yet
    while not process.gone(named):
        pass  # until the kernel has taken it down
    child.wait()
    assert process.gone(named)


def test_a_later_process_of_the_same_number_is_another():
    assert process.gone(process.this() | {"began": process.this()["began"] - 3600})


def test_of_another_machine_nothing_is_known():
    assert not process.gone({"host": "elsewhere.invalid", "pid": 1 << 30, "began": 0.0})
