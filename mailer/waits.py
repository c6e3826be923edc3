"""How long a read or write on a socket may wait, told to the kernel where that is possible.

``socket.settimeout`` makes CPython poll before every read and write: one more system call, and one more time that the
interpreter lock is let go and fought for. A plain socket can be left blocking instead, with SO_RCVTIMEO and SO_SNDTIMEO
(socket(7)): a wait that takes too long then ends with EAGAIN, which Python raises as BlockingIOError. For TLS that does
not work (``ssl`` would try again for ever), so a TLS socket gets ``settimeout`` and raises TimeoutError.
"""

from __future__ import annotations

import functools
import math
import socket
import ssl
import struct
from typing import Protocol

STEP_SECONDS = 0.25
"""Time-outs are rounded up to this, so that one that hardly changes need not be told anew."""

TOO_LONG = (TimeoutError, BlockingIOError)
"""What a wait that took too long is raised as."""


def rounded(seconds: float) -> float:
    """``seconds`` rounded up to a whole number of steps; never 0, which would be no time-out at all."""
    return max(1, math.ceil(seconds / STEP_SECONDS)) * STEP_SECONDS


class Waiting(Protocol):
    """Something with a time-out: a socket, or what stands in for one."""

    def settimeout(self, value: float, /) -> None: ...


@functools.lru_cache(16)
def _timeval(seconds: float) -> bytes:
    """``struct timeval`` of the machine's C library. Remembered, since there are few time-outs and many sockets."""
    whole = int(seconds)
    return struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))


def bound_waits(sock: Waiting, seconds: float) -> None:
    """Let no read or write on ``sock`` wait longer than ``seconds``. Raises OSError when the socket is closed."""
    if isinstance(sock, ssl.SSLSocket) or not isinstance(sock, socket.socket):
        sock.settimeout(seconds)
        return
    limit = _timeval(seconds)
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
