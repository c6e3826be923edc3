"""Connects to the first of several addresses that answers (RFC 8305, "happy eyeballs").

Attempts begin one after the other and then run side by side, so an address that swallows packets (a broken IPv6 route) costs
the next no more than the head start. No threads, no locks: non-blocking sockets, all but the winner closed. Raises OSError.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from itertools import chain, zip_longest

HEAD_START_SECONDS = 0.25  # RFC 8305 5: the recommended Connection Attempt Delay

SocketAddress = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


def connect(addresses: Sequence[SocketAddress], seconds: float) -> socket.socket:
    """A connection to the first that answers, begun with in the order of ``interleaved``. Raises the OSError of the address
    that failed last, or TimeoutError once ``seconds`` are over."""
    waiting = interleaved(addresses)
    attempts: dict[int, socket.socket] = {}
    poll = select.poll()
    error = OSError("host has no address")
    now = time.monotonic()
    deadline = now + seconds
    # Where time is short, so that each still gets its share of it.
    head_start = min(HEAD_START_SECONDS, seconds / max(1, len(waiting)))
    next_at = now
    try:
        while waiting or attempts:
            if (now := time.monotonic()) >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if waiting and (now >= next_at or not attempts):
                next_at = now + head_start
                try:
                    begun = _begin(waiting.pop(0))
                except OSError as refused:
                    error = refused
                    continue
                attempts[begun.fileno()] = begun
                poll.register(begun, select.POLLOUT)
            until = min(next_at, deadline) if waiting else deadline
            for number, _ in poll.poll(max(0.0, until - now) * 1000 + 1):  # poll counts in milliseconds, rounded down
                poll.unregister(number)
                connection = attempts.pop(number)
                failed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not failed:
                    connection.setblocking(True)
                    return connection
                connection.close()
                error = OSError(failed, os.strerror(failed))  # becomes ConnectionRefusedError and so on by its number
                next_at = now  # RFC 8305 5: who fails at once has no head start
        raise error
    finally:
        for loser in attempts.values():
            loser.close()


def _begin(address: SocketAddress) -> socket.socket:
    """A socket whose connection is under way. Raises OSError when there is no route."""
    family, place = address
    begun = socket.socket(family, socket.SOCK_STREAM)
    begun.setblocking(False)
    try:
        begun.connect(place)
    except BlockingIOError:
        pass
    except OSError:
        begun.close()
        raise
    return begun


def interleaved(addresses: Sequence[SocketAddress]) -> list[SocketAddress]:
    """The families in turn, that of the first address in front (RFC 8305 4); the order within each stays."""
    if not addresses:
        return []
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]
