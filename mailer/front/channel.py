"""A channel between the two processes: values in, the same values out, in order, from any number of threads.

A pair of SOCK_SEQPACKET sockets (unix(7)): a packet arrives whole or not at all, so threads may send at once and need no
lock; what is larger than a packet goes in numbered pieces. Values are written with ``marshal``: both ends are the same
program, and what a client sent is in them as bytes and text alone.

One thread reads. The other end's death is the end of the values, ``None``; sending to it raises ChannelLost.
"""

from __future__ import annotations

import contextlib
import marshal
import queue
import socket
import struct
import threading
from typing import Any

from mailer.mail.outcome import MailerError

PACKET_BYTES = 128 * 1024
"""Holds most messages whole; the kernel gives a socket at least 200 KiB of room (net.core.wmem_max)."""
STALLED_SECONDS = 30
"""An end that has read nothing for so long, with its room full, counts as dead."""
_ROOM_BYTES = 4 * 1024 * 1024  # asked for; the kernel grants what its limits allow

_WHOLE, _PIECE, _LAST = b"\0", b"\1", b"\2"
_NUMBER = struct.Struct("=Q")
_TIMEVAL = struct.Struct("@ll")


class ChannelLost(MailerError):
    """The process at the other end is gone, or reads no more."""


class Channel:
    """One end. Made in pairs; each process keeps one and closes the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(PACKET_BYTES + 64)
        self._view = memoryview(self._buffer)
        self._pieces: dict[bytes, list[bytes]] = {}  # of the reading thread: what has come of values in pieces
        self._lock = threading.Lock()  # guards _number
        self._number = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(STALLED_SECONDS, 0))

    def __repr__(self) -> str:
        return f"Channel({self._socket.fileno()})"

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def send(self, value: tuple[Any, ...]) -> None:
        """Send a tuple of what marshal knows: numbers, text, bytes, None, and tuples and lists of them. Any thread.

        Raises ChannelLost.
        """
        data = marshal.dumps(value)
        try:
            if len(data) < PACKET_BYTES:
                self._socket.sendmsg((_WHOLE, data))
            else:
                self._send_pieces(data)
        except OSError as error:
            raise ChannelLost(f"the other process is gone: {error.strerror or error}") from None

    def _send_pieces(self, data: bytes) -> None:
        with self._lock:
            self._number += 1
            number = _NUMBER.pack(self._number)
        view = memoryview(data)
        step = PACKET_BYTES - len(number)
        for start in range(0, len(view), step):
            kind = _PIECE if start + step < len(view) else _LAST
            self._socket.sendmsg((kind, number, view[start : start + step]))

    def receive(self) -> tuple[Any, ...] | None:
        """The next value; None at the end. One thread alone."""
        while True:
            try:
                count = self._socket.recv_into(self._view)
            except OSError:
                return None
            if count == 0:
                return None
            kind = self._buffer[0]
            if kind == 0:
                return self._read(self._view[1:count])
            number = bytes(self._view[1 : 1 + _NUMBER.size])
            self._pieces.setdefault(number, []).append(bytes(self._view[1 + _NUMBER.size : count]))
            if kind == _LAST[0]:
                return self._read(b"".join(self._pieces.pop(number)))

    @staticmethod
    def _read(data: bytes | memoryview) -> tuple[Any, ...]:
        value: tuple[Any, ...] = marshal.loads(data)  # noqa: S302 - written by our own other half
        return value

    def end(self) -> None:
        """Nothing more is said either way; whoever waits in ``receive`` is let go. Any thread, any number of times."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this process's descriptor, which its twin in the other process does not notice."""
        self._socket.close()


class Questions:
    """Questions over a channel whose answers come as values of their own: who asks waits here, any thread."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()  # guards all below
        self._number = 0
        self._waiting: dict[int, queue.SimpleQueue[Any]] = {}
        self._is_lost = False

    def __repr__(self) -> str:
        return f"Questions(waiting={len(self._waiting)})"

    def ask(self, word: int, *about: Any, timeout_seconds: float | None = None) -> Any:
        """The answer to ``(word, number, *about)``. Raises ChannelLost, also when none has come within the time."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._lock:
            if self._is_lost:
                raise ChannelLost("the other process is gone")
            self._number = number = self._number + 1
            self._waiting[number] = answer
        try:
            self._channel.send((word, number, *about))
            found = answer.get(timeout=timeout_seconds)
        except queue.Empty:
            raise ChannelLost(f"the other process does not answer within {timeout_seconds:g} s") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if isinstance(found, ChannelLost):
            raise found
        return found

    def answered(self, number: int, answer: Any) -> None:
        """An answer came."""
        with self._lock:
            waiting = self._waiting.get(number)
        if waiting is not None:
            waiting.put(answer)

    def lost(self) -> None:
        """No answer will come any more."""
        with self._lock:
            self._is_lost = True
            waiting = list(self._waiting.values())
        for answer in waiting:
            answer.put(ChannelLost("the other process is gone"))
