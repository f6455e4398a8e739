"""Signals become an exception once, and nothing at all while a tear-down works."""

import os
import signal
import threading

import pytest

from testbed.machine import interrupts
from testbed.machine.interrupts import InterruptedBySignalError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_raised_and_the_others_do_not_stop_the_tear_down(number: signal.Signals) -> None:
    with interrupts.raised() as signals:
        with pytest.raises(InterruptedBySignalError) as caught:
            os.kill(os.getpid(), number)
        assert caught.value.number == number
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), other)
        with pytest.raises(KeyboardInterrupt):
            signals.check()


def test_without_a_signal_nothing_is_raised() -> None:
    with interrupts.raised() as signals:
        signals.check()


def test_signals_are_held_off_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.raised():
        with interrupts.held_off():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(InterruptedBySignalError):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_postponed_signal_comes_at_the_end_of_the_block_once() -> None:
    reached = []

    def whole() -> None:
        with interrupts.postponed():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("end")

    with interrupts.raised(), pytest.raises(InterruptedBySignalError) as caught:
        whole()
    assert (reached, caught.value.number) == (["end"], signal.SIGTERM)
    with interrupts.raised(), interrupts.held_off(), interrupts.postponed():
        os.kill(os.getpid(), signal.SIGTERM)  # and what is held off stays held off


def test_other_threads_leave_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with interrupts.raised(), interrupts.held_off():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
