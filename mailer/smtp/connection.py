"""The client's connection: bytes come into a bounded buffer, replies are gathered and go out together, TLS begins, it ends.

One session thread owns a ``Connection``; ``interrupt``, ``abort`` and ``close`` alone may come from another, and one lock
keeps them off each other's file descriptor. Whatever ends the connection comes out as ``Disconnect``.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Protocol

from mailer.mail.outcome import Reply
from mailer.smtp.pace import DataRate, Pace
from mailer.smtp.replies import IDLE, SHUTTING_DOWN, Disconnect
from mailer.waits import TOO_LONG, bound_waits

FIRST_BUFFER_BYTES = 8 * 1024
"""Holds the usual message whole, and 1,000 idle sessions take 8 MiB."""
PENDING_REPLIES_BYTES = 16 * 1024
"""Replies to pipelined commands are sent at the latest when so many bytes wait."""
TICK_SECONDS = 10.0
"""How long a read or write may block at a time; then the clock is looked at. A client that takes no replies is given up."""
HANDSHAKE_SECONDS = 30.0

_SILENT_ENDS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError, TimeoutError)
"""How a handshake ends whose client has said nothing: a probe of the port, which leaves no log line."""


class SocketLike(Protocol):
    """What a ``Connection`` asks of a socket; ``recv_into`` raises TimeoutError or BlockingIOError when nothing comes."""

    def recv_into(self, buffer: memoryview, /) -> int: ...

    def sendall(self, data: bytes, /) -> None: ...

    def settimeout(self, value: float, /) -> None: ...

    def close(self) -> None: ...


class Connection:
    """A socket with what was received and not yet read, and what was said and not yet sent. ``clock`` is monotonic seconds."""

    def __init__(self, sock: SocketLike, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._sock = sock
        self._pace = pace
        self._clock = clock
        self._buffer = bytearray(FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0  # what was received and not yet given out is _buffer[_start:_end]
        self._end = 0
        self._said = b""  # replies that wait to be sent
        # Guards _closed, is_ending and the end of _in_data, and that nobody shuts down a descriptor that is being closed.
        self._lock = threading.Lock()
        self._closed = False
        self.is_tls = False
        self.is_ending = False  # set by ``interrupt``; the session says 421 as soon as it can
        self._in_data = False  # a message is being read
        self._rate: DataRate | None = None  # of the message under way, once it has not come at one go
        self._received_before = 0  # received_bytes when its DATA began
        self.received_bytes = 0
        self._tick = min(TICK_SECONDS, pace.idle_seconds) if pace.idle_seconds > 0 else TICK_SECONDS
        self._bound_waits()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(tls={self.is_tls}, buffered={self._end - self._start}, ending={self.is_ending})"

    # --- replies

    def say(self, reply: Reply) -> None:
        """Queue a reply. It is sent before the wire next waits for input (RFC 2920 3.2), or by ``flush``."""
        self.say_bytes(reply.to_wire())

    def say_bytes(self, wire: bytes) -> None:
        if not self._said:
            self._said = wire
            return
        self._said += wire
        if len(self._said) > PENDING_REPLIES_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is queued."""
        said, self._said = self._said, b""
        if not said:
            return
        try:
            self._sock.sendall(said)
        except OSError as error:
            raise Disconnect(None, f"client takes no reply: {error}") from None

    # --- input

    def input_waits(self) -> bool:
        """Whether the client has sent anything that was not read yet. Does not wait."""
        if self._start < self._end:
            return True
        self._make_room()
        try:
            self._sock.settimeout(0)
            count = self._sock.recv_into(self._view[self._end :])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            raise Disconnect(None, f"connection lost: {error}") from None
        finally:
            self._bound_waits()
        self._end += count
        self.received_bytes += count
        return count > 0

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Send what is queued, forget what the client sent before, and shake hands (RFC 3207 4, 6)."""
        self.flush()
        self._start = self._end = 0  # CVE-2011-0411: input from before TLS is never executed within it
        if not isinstance(self._sock, socket.socket):
            raise Disconnect(None, "TLS needs a socket")
        try:
            sock = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
            with self._lock:
                self._sock = sock
            sock.settimeout(HANDSHAKE_SECONDS)
            sock.do_handshake()
            self._bound_waits()
        except (OSError, ValueError) as error:  # ValueError: the connection ended before the handshake began
            is_silent = isinstance(error, _SILENT_ENDS) and self.received_bytes == 0
            raise Disconnect(None, "" if is_silent else f"TLS handshake failed: {error}") from None
        self.is_tls = True

    def _bound_waits(self) -> None:
        with contextlib.suppress(OSError):  # gone already: the next read or write says so
            bound_waits(self._sock, self._tick)

    def _deadline(self) -> float:
        return self._clock() + self._pace.idle_seconds

    def _receive(self, deadline: float | None = None) -> None:
        """Wait for more input: until ``deadline``, else for the idle time from now on. Raises Disconnect.

        The clock is read only once the kernel has waited in vain: most input comes sooner.
        """
        if self._said:
            self.flush()
        if self._start == self._end:
            self._start = self._end = 0
        else:
            self._make_room()
        while True:
            try:
                count = self._sock.recv_into(self._view[self._end :] if self._end else self._view)
                break
            except TOO_LONG:
                now = self._clock()
                began = now - self._tick
                if deadline is None:
                    deadline = began + self._pace.idle_seconds
                if now >= deadline:
                    raise Disconnect(IDLE, "idle for too long") from None
                if self._in_data:
                    self._check_rate(now, began)
            except OSError as error:
                raise Disconnect(None, f"connection lost: {error}") from None
        if count == 0:
            raise Disconnect(SHUTTING_DOWN if self.is_ending else None, "end of input")
        self._end += count
        self.received_bytes += count

    def _check_rate(self, now: float, began: float) -> None:
        """Judge how the message under way comes in, from ``began`` on if this is the first look at it."""
        if self._rate is None:
            self._rate = DataRate(self._pace.min_data_rate, began, self._received_before)
        self._rate.check(now, self.received_bytes)

    def _make_room(self) -> None:
        """Leave at least one byte free: start anew, move down, or grow (to twice the last size, which no caller fills)."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            pending = bytes(self._view[self._start : self._end])
            if self._start == 0:
                self._resize(2 * len(self._buffer))
            self._view[: len(pending)] = pending
            self._start, self._end = 0, len(pending)

    def _shrink(self) -> None:
        """After a large message: give its memory back, so that a thousand idle sessions do not keep it."""
        pending = self._end - self._start
        if pending <= FIRST_BUFFER_BYTES:
            rest = bytes(self._view[self._start : self._end])
            self._resize(FIRST_BUFFER_BYTES)
            self._view[:pending] = rest
            self._start, self._end = 0, pending

    def _resize(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)

    # --- the end

    def interrupt(self) -> None:
        """Ask the session to end: its wait for a command is over at once; a message may come to its end.

        Any thread may call this. A session that has left DATA before this is cut off in its wait; one that leaves it later
        sees ``is_ending`` before it waits. One that enters DATA at this very moment is cut off in it, which loses nothing.
        """
        with self._lock:
            self.is_ending = True
            is_in_data = self._in_data
        if not is_in_data:
            self._shut(socket.SHUT_RD)

    def abort(self) -> None:
        """End the connection under the session, whatever it is at. Any thread may call this."""
        self.is_ending = True
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            if not self._closed and isinstance(self._sock, socket.socket):
                # SSLSocket.shutdown would drop the TLS layer, and what the session says next would go in clear text.
                socket.socket.shutdown(self._sock, how)

    def close(self) -> None:
        """Close the connection, for TLS with a last word so that the client can tell it from one that was cut."""
        with self._lock:
            self._closed = True
            if isinstance(self._sock, ssl.SSLSocket):
                with contextlib.suppress(OSError, ValueError):
                    self._sock.settimeout(0)  # say it, but wait for no answer
                    self._sock.unwrap()
            with contextlib.suppress(OSError):
                self._sock.close()
