"""What another process is training is waited for last: cells that run side by side share more than a teacher."""

import os
import platform
import threading
import time

from kdrun.training import obtain
from tests.training.conftest import TEACHER


def test_what_nobody_else_trains_is_trained_before_what_must_be_waited_for(request_for, new_obtainer):
    obtainer = new_obtainer()
    held, free = request_for(), request_for(model=TEACHER)
    taken, seen = threading.Event(), []

    def other_process():
        with obtainer.store.locked(held.spec.fingerprint, None):
            taken.set()
            end = time.monotonic() + 60
            while obtainer.store.find(free.spec.fingerprint) is None and time.monotonic() < end:
                time.sleep(0.01)
            seen.append(obtainer.store.find(held.spec.fingerprint))

    other = threading.Thread(target=other_process)
    other.start()
    assert taken.wait(10)
    got = new_obtainer().obtain([held, free])
    other.join()
    assert [artifact.fingerprint for artifact in got] == [held.spec.fingerprint, free.spec.fingerprint]
    assert seen == [None]  # the other network was there while this one was still held


def test_a_network_that_another_process_made_meanwhile_is_not_trained_again(request_for, new_obtainer, caplog):
    caplog.set_level("DEBUG")
    obtainer, taken = new_obtainer(), threading.Event()
    wanted = request_for()

    def other_process():
        with obtainer.store.locked(wanted.spec.fingerprint, None):
            taken.set()
            made = new_obtainer("elsewhere").obtain([wanted])[0].folder
            made.rename(obtainer.store.root / made.name)

    other = threading.Thread(target=other_process)
    obtainer.store.root.mkdir(parents=True, exist_ok=True)
    other.start()
    assert taken.wait(10)
    new_obtainer().obtain([wanted])
    other.join()
    assert ": waiting for " in caplog.text or ", trained by another process" in caplog.text
    assert caplog.text.count(": training ") == 1


def test_who_is_waited_for_is_logged_once_and_shown_all_the_time(
    request_for, new_obtainer, caplog, capsys, monkeypatch
):
    caplog.set_level("DEBUG")
    monkeypatch.setattr(obtain, "bars_off", lambda: False)  # as on a terminal
    obtainer, wanted, taken = new_obtainer(), request_for(epochs=1), threading.Event()

    def other_process():
        with obtainer.store.locked(wanted.spec.fingerprint, None):
            taken.set()
            time.sleep(1.4)

    other = threading.Thread(target=other_process)
    other.start()
    assert taken.wait(10)
    new_obtainer().obtain([wanted])
    other.join()
    text = f"baseline net seed 0: waiting for process {os.getpid()} on {platform.node()} (busy since "
    assert caplog.text.count(text) == 1
    assert capsys.readouterr().err.count(text[:50]) >= 2
    assert obtainer.store.holder(wanted.spec.fingerprint) is None
