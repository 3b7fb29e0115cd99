"""Ctrl-C is answered between two steps; insisting interrupts at once."""

import os
import signal

import pytest

from remask import interruption
from remask.interruption import InterruptRequest


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(number):
    with InterruptRequest() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        assert interrupt.requested


def test_the_same_wish_passed_on_by_a_launcher_at_once_is_no_second_one(clock):
    with InterruptRequest() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        clock[0] += 0.5
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested


def test_a_later_second_signal_interrupts_at_once(clock):
    with InterruptRequest():
        os.kill(os.getpid(), signal.SIGINT)
        clock[0] += 2.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_mean_what_they_meant_before():
    before = signal.getsignal(signal.SIGTERM)
    with InterruptRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
