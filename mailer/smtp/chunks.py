"""A message that comes by BDAT, in chunks that the client cuts where it likes (RFC 3030 2).

No threads, no locks: a ``Chunks`` belongs to the session that reads it. What is wrong with the content shows in ``fault``;
only a message without an end raises Disconnect.
"""

from __future__ import annotations

from collections.abc import Iterable

from mailer.mail.content import Content
from mailer.smtp.message import Incoming
from mailer.smtp.replies import Refused
from mailer.smtp.wire import CR, LF


class Chunks:
    """Gives an ``Incoming`` what it would be given behind DATA: no piece that parts CR from LF, and whole lines at the end."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self._has_held_cr = False  # the last piece ended in a CR, whose LF may come with the next
        self._last = LF  # the last byte that was given on

    def __repr__(self) -> str:
        return f"Chunks(received={self.incoming.received})"

    @property
    def fault(self) -> Refused | None:
        """The first thing that was wrong."""
        return self.incoming.fault

    def take(self, pieces: Iterable[bytes]) -> None:
        """A chunk, in pieces. Raises Disconnect when there is no end to the message."""
        for piece in pieces:
            whole = b"\r" + piece if self._has_held_cr else piece
            self._has_held_cr = whole[-1] == CR
            if self._has_held_cr:
                whole = whole[:-1]
            if whole:
                self._last = whole[-1]
                self.incoming.take(whole)

    def finish(self) -> Content:
        """The content, all chunks taken. Raises Refused, SpoolError."""
        if self._has_held_cr:
            self.incoming.take(b"\r")
        elif self._last != LF:
            self.incoming.end_line()
        return self.incoming.finish()

    def close(self) -> None:
        """The message was not accepted: free what it took."""
        self.incoming.close()
