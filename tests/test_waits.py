"""Time-outs told to the kernel hold, and cost no poll."""

from __future__ import annotations

import socket

import pytest

from mailer.waits import TOO_LONG, bound_waits, rounded


def test_read_that_waits_too_long_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bound_waits(ours, 0.25)
        with pytest.raises(TOO_LONG):
            ours.recv(1)
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"


def test_write_that_nobody_takes_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bound_waits(ours, 0.25)
        with pytest.raises(TOO_LONG):
            ours.sendall(b"x" * 10_000_000)


def test_socket_stays_blocking_so_that_python_does_not_poll() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(1)
        bound_waits(ours, 5)
        assert ours.gettimeout() is None


def test_closed_socket_is_an_os_error() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        bound_waits(ours, 1)


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 0.25), (0.2, 0.25), (0.25, 0.25), (0.26, 0.5), (59.99, 60.0), (-1.0, 0.25)])
def test_time_outs_are_rounded_up_and_never_none(seconds: float, told: float) -> None:
    assert rounded(seconds) == told
