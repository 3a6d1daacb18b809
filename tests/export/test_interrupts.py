"""Interrupts that native code swallows."""

import contextlib
import os
import signal
import threading

import pytest

from polc_export.interrupts import sigint_flag


def test_an_interrupt_that_was_swallowed_is_raised_again_at_the_next_check():
    before = signal.getsignal(signal.SIGINT)
    with sigint_flag() as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):  # as Python does in a callback of native code
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_changes():
    before, failed = signal.getsignal(signal.SIGINT), []

    def work():
        with sigint_flag() as check:
            check()
            failed.extend([] if signal.getsignal(signal.SIGINT) is before else ["handler"])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
