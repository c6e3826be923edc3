"""An intake that keeps what it was given, for tests of the listener."""

from __future__ import annotations

import threading

from mailer.mail.content import Content, MemoryContent
from mailer.mail.envelope import Envelope
from mailer.spool.store import ContentWriter, SpoolError


class MemoryWriter:
    """A ContentWriter in memory."""

    def __init__(self, owner: MemoryIntake) -> None:
        self._owner = owner
        self._pieces: list[bytes] = []
        self.is_discarded = False

    @property
    def size(self) -> int:
        return sum(map(len, self._pieces))

    def write(self, piece: bytes) -> None:
        if self._owner.write_error is not None:
            raise self._owner.write_error
        self._pieces.append(piece)

    def finish(self) -> Content:
        return MemoryContent(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))

    def discard(self) -> None:
        self.is_discarded = True


class MemoryIntake:
    """Accepts everything, or raises what it is told to. ``messages`` are envelope and content, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.messages: list[tuple[Envelope, bytes]] = []
        self.writers: list[MemoryWriter] = []
        self.write_error: SpoolError | None = None
        self.accept_error: Exception | None = None
        self.before_accept: threading.Event | None = None

    def new_content(self, message_id: str) -> ContentWriter:
        writer = MemoryWriter(self)
        self.writers.append(writer)
        return writer

    def accept(self, envelope: Envelope, content: Content) -> None:
        if self.before_accept is not None:
            assert self.before_accept.wait(30)
        if self.accept_error is not None:
            raise self.accept_error
        with self._lock:
            self.messages.append((envelope, b"".join(content.chunks())))

    @property
    def contents(self) -> list[bytes]:
        return [content for _, content in self.messages]
