"""The kept connections of one provider or domain: idle ones wait here, in the order of their last use.

One lock guards the idle list and the counts; sockets are touched outside it. The pool never waits: when
``max_connections`` are in use, ``claim`` says so. It cannot fail otherwise.
"""

from __future__ import annotations

import threading
from collections import deque

from mailer.transport.client import Conversation

IDLE_SECONDS = 30.0
"""How long an idle connection is kept. Servers wait for minutes (RFC 5321 4.5.3.2.7), hosted ones often less than one,
and many count idle connections against a limit; a login and a handshake every half minute cost nothing."""

MESSAGES_A_CONNECTION = 100
"""Messages after which a connection is closed: hosted providers cut off at about as many with a 421, and a new
connection now and then follows their DNS to another machine."""


class Pool:
    """Idle conversations, and how many are open in all. ``limit`` 0 is no limit.

    ``messages``: how many a connection is used for; whoever owns the pool may change it.
    """

    def __init__(self, limit: int, idle_seconds: float = IDLE_SECONDS, messages: int = MESSAGES_A_CONNECTION) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self.messages = messages
        self._lock = threading.Lock()  # guards all below
        self._idle: deque[Conversation] = deque()  # the longest idle first
        self._in_use = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"Pool(idle={len(self._idle)}, in_use={self._in_use}, limit={self._limit}, closed={self._closed})"

    @property
    def connections(self) -> int:
        with self._lock:
            return len(self._idle) + self._in_use

    @property
    def has_idle(self) -> bool:
        with self._lock:
            return bool(self._idle)

    def claim(self, may_reuse: bool = True) -> tuple[bool, Conversation | None]:
        """Claim one connection, to be given up with ``end``: the last used of the idle ones that still stand, or None:
        open a new one. The first value is False when all are in use: then nothing is claimed."""
        with self._lock:
            if self._limit and self._in_use >= self._limit:
                return False, None
            self._in_use += 1
            conversation = self._idle.pop() if self._idle and may_reuse else None
        while conversation is not None and conversation.is_stale:
            conversation.close()
            with self._lock:
                conversation = self._idle.pop() if self._idle else None
        return True, conversation

    def end(self, conversation: Conversation, now: float) -> None:
        """Give up a claim; the conversation is kept for later, or closed. ``now``: Unix seconds."""
        keep = conversation.sock is not None and conversation.sent < self.messages
        conversation.idle_since = now
        with self._lock:
            self._in_use -= 1
            keep = keep and not self._closed
            if keep:
                self._idle.append(conversation)
        if not keep:
            conversation.leave()

    def reap(self, now: float) -> None:
        """Close what has been idle for too long. A clock set back makes everything look too long."""
        with self._lock:
            expired = []
            while self._idle and not 0 <= now - self._idle[0].idle_since < self._idle_seconds:
                expired.append(self._idle.popleft())
        for conversation in expired:
            conversation.leave()

    def flush(self) -> None:
        """Close every idle connection at once, without a farewell: the server is in trouble, or we are leaving."""
        with self._lock:
            idle, self._idle = self._idle, deque()
        for conversation in idle:
            conversation.close()

    def close(self) -> None:
        """Close every idle connection, and those in use as they come back."""
        with self._lock:
            self._closed = True
        self.flush()
