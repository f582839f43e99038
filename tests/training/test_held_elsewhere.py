"""What another process is training is waited for last: cells that run side by side share more than a teacher."""

import threading
import time

from tests.training.conftest import TEACHER


def test_what_nobody_else_trains_is_trained_before_what_must_be_waited_for(request_for, workshop):
    shop = workshop()
    held, free = request_for(), request_for(model=TEACHER)
    taken, seen = threading.Event(), []

    def other_process():
        with shop.store.locked(held.spec.fingerprint, None):
            taken.set()
            end = time.monotonic() + 60
            while shop.store.find(free.spec.fingerprint) is None and time.monotonic() < end:
                time.sleep(0.01)
            seen.append(shop.store.find(held.spec.fingerprint))

    other = threading.Thread(target=other_process)
    other.start()
    assert taken.wait(10)
    got = workshop().obtain([held, free])
    other.join()
    assert [artifact.fingerprint for artifact in got] == [held.spec.fingerprint, free.spec.fingerprint]
    assert seen == [None]  # the other network was there while this one was still held


def test_a_network_that_another_process_made_meanwhile_is_not_trained_again(request_for, workshop, caplog):
    caplog.set_level("INFO")
    shop, taken = workshop(), threading.Event()
    wanted = request_for()

    def other_process():
        with shop.store.locked(wanted.spec.fingerprint, None):
            taken.set()
            made = workshop("elsewhere").obtain([wanted])[0].folder
            made.rename(shop.store.root / made.name)

    other = threading.Thread(target=other_process)
    shop.store.root.mkdir(parents=True, exist_ok=True)
    other.start()
    assert taken.wait(10)
    workshop().obtain([wanted])
    other.join()
    assert "; waiting" in caplog.text or ", trained by another process" in caplog.text
    assert caplog.text.count(": training ") == 1
