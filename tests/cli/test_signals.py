"""Signals: they reach the main thread through the pipe, and a second request to stop is told from an echo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from mailer.cli.signals import SECOND_REQUEST_SECONDS, SignalPipe, Stop, StopRequests

WAIT_SECONDS = 20.0


@pytest.fixture
def signals() -> Iterator[SignalPipe]:
    numbers = (signal.SIGHUP, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    pipe = SignalPipe()
    pipe.install(*numbers)
    yield pipe
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_request_drains() -> None:
    assert StopRequests().ask(100.0) is Stop.DRAIN


def test_the_echo_of_a_request_is_no_second_one() -> None:
    """A group's SIGTERM reaches a one-file executable's child twice: from the group, and forwarded by the launcher."""
    requests = StopRequests()
    requests.ask(100.0)
    assert [requests.ask(100.0), requests.ask(100.0 + SECOND_REQUEST_SECONDS)] == [Stop.SAME, Stop.SAME]


def test_a_second_request_more_than_a_second_later_ends_at_once() -> None:
    requests = StopRequests()
    requests.ask(100.0)
    requests.ask(100.5)
    assert requests.ask(101.01) is Stop.AT_ONCE


def test_signals_arrive_in_order_and_do_not_end_the_process(signals: SignalPipe) -> None:
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.wait(WAIT_SECONDS) == [signal.SIGHUP, signal.SIGTERM]


def test_a_wake_up_is_no_signal(signals: SignalPipe) -> None:
    waker = threading.Thread(target=signals.wake)
    waker.start()
    assert signals.wait(WAIT_SECONDS) == []
    waker.join()


def test_waking_never_waits_however_often(signals: SignalPipe) -> None:
    for _ in range(100_000):  # more than a pipe holds
        signals.wake()
    assert signals.wait(WAIT_SECONDS) == []


def test_without_a_signal_the_wait_ends_by_itself(signals: SignalPipe) -> None:
    assert signals.wait(0.0) == []


def test_die_of_ends_the_process_by_the_signal_itself() -> None:
    code = "import signal; from mailer.cli.signals import *; p = SignalPipe(); p.install(signal.SIGTERM); die_of(signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -signal.SIGTERM
