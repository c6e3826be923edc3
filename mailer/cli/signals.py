"""Signals: owns how one that arrives reaches the main thread, and what a second request to stop means.

A handler of ours does nothing: the interpreter's C handler writes the signal's number into a pipe (``set_wakeup_fd``)
and the main thread reads it there, so no work is ever done in the middle of other work. Any thread may ``wake`` the
reader. Only the main thread may install and read.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)

SECOND_REQUEST_SECONDS = 1.0
"""A second request to stop counts only so long after the first: a one-file executable's child gets a signal to its
process group twice within moments, once itself and once forwarded by its launcher."""

_WAKE = b"\0"  # no signal has the number 0


class Stop(enum.Enum):
    """What a request to stop asks for."""

    DRAIN = "drain"  # the first: finish what is in flight
    SAME = "same"  # an echo of the first
    AT_ONCE = "at once"  # a second one, meant


class StopRequests:
    """Tells a second request to stop from the echo of the first."""

    def __init__(self) -> None:
        self._first_at: float | None = None

    def __repr__(self) -> str:
        return f"StopRequests(first_at={self._first_at})"

    def ask(self, now: float) -> Stop:
        """A request arrived at ``now`` (monotonic seconds)."""
        if self._first_at is None:
            self._first_at = now
            return Stop.DRAIN
        return Stop.AT_ONCE if now - self._first_at > SECOND_REQUEST_SECONDS else Stop.SAME


class Terminal:
    """The terminal that this process was started from, if any: closing it sends SIGHUP, and then means to stop.

    Made before SIGHUP is installed: who started us with ``nohup`` wants us to outlive the terminal.
    """

    def __init__(self) -> None:
        self._matters = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    def __repr__(self) -> str:
        return f"Terminal(matters={self._matters})"

    def has_closed(self) -> bool:
        """Whether it was there at the start and is no longer."""
        return self._matters and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class SignalPipe:
    """The pipe that signals, and wake-ups from other threads, arrive in."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __repr__(self) -> str:
        return f"SignalPipe(reader={self._reader})"

    def install(self, *numbers: signal.Signals) -> None:
        """Let these signals arrive here from now on, instead of ending the process."""
        # A full pipe loses a signal's byte only where thousands of others wait to be read: no warning needed.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _do_nothing)

    def wake(self) -> None:
        """End the reader's wait; may be called by any thread."""
        with contextlib.suppress(BlockingIOError):  # full: then it wakes anyway
            os.write(self._writer, _WAKE)

    def wait(self, seconds: float) -> list[int]:
        """The numbers of the signals that arrived; empty after a wake-up, or after ``seconds`` without any."""
        ready, _, _ = select.select([self._reader], [], [], seconds)
        if not ready:
            return []
        return [number for number in os.read(self._reader, 4096) if number]


def die_of(number: int) -> None:
    """End this process by the signal itself, so that whoever waits for it sees the truth."""
    signal.set_wakeup_fd(-1)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Stands in for the default action; the byte in the pipe is what counts."""
