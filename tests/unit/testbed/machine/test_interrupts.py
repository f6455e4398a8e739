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


def test_a_block_within_a_block_is_a_part_of_it_and_a_second_signal_is_not_heard() -> None:
    with interrupts.raised() as outer:
        with interrupts.raised() as inner, pytest.raises(InterruptedBySignalError):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        for block in (inner, outer):
            with pytest.raises(InterruptedBySignalError):
                block.check()
    with interrupts.raised() as next_one:
        next_one.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_the_caller_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interrupts.raised() as signals:
            os.kill(os.getpid(), number)
            signals.check()
            with interrupts.postponed():
                os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


def test_at_a_prompt_every_ctrl_c_is_heard_and_another_signal_ends_it() -> None:
    with interrupts.raised() as signals:
        with interrupts.each_key():
            for _ in range(3):
                with pytest.raises(KeyboardInterrupt) as caught:
                    os.kill(os.getpid(), signal.SIGINT)
                assert interrupts.number_of(caught.value) == signal.SIGINT
            signals.check()
            with pytest.raises(InterruptedBySignalError):
                os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt) as ended:
            signals.check()
    assert interrupts.number_of(ended.value) == signal.SIGHUP


def test_a_program_that_takes_our_place_ends_by_a_broken_pipe_as_any() -> None:
    before = signal.getsignal(signal.SIGPIPE)
    try:
        interrupts.back_to_default()
        assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGPIPE, before)
