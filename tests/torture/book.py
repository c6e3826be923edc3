"""The book: what was promised for every message, and every copy that came.

Both ends of the traffic write here from many threads; one lock guards it all and a condition of it wakes who waits. It
outlives every crash of the relay, since it is kept by the process that drives the run. ``judge.py`` reads it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.torture.messages import NEVER, REFUSED, Copy, Message

SINK, DEAD = "provider", "emails/dead"


@dataclass(slots=True)
class Entry:
    """What the client knows of one message. ``id`` is named by its 250; "" while there is none. ``code``: the refusal."""

    expected: tuple[str, ...]
    buried: tuple[str, ...]
    id: str = ""
    code: int = 0


@dataclass(slots=True)
class Book:
    """``entries`` by token. ``copies``: how often each (token, recipient, place) came. ``ids``: those a token came under."""

    entries: dict[str, Entry] = field(default_factory=dict)
    copies: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ids: dict[str, set[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    arrivals: int = 0
    promised: int = 0
    _owed: set[tuple[str, str, str]] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def sent(self, message: Message) -> None:
        """To be called before the last byte of the message goes out: from here on it may arrive."""
        taken = tuple(r for r in message.recipients if not r.endswith((f"@{REFUSED}", f"@{NEVER}")))
        buried = tuple(r for r in message.recipients if r.endswith(f"@{NEVER}"))
        with self._changed:
            self.entries[message.token] = Entry(taken, buried)

    def accepted(self, token: str, id_: str) -> None:
        """Its whole 250 was read."""
        with self._changed:
            entry = self.entries[token]
            entry.id = id_
            self.promised += 1
            owed = {(token, r, SINK) for r in entry.expected} | {(token, r, DEAD) for r in entry.buried}
            self._owed |= {key for key in owed if not self.copies[key]}
            self._changed.notify_all()

    def refused(self, token: str, code: int) -> None:
        """It was answered with an error: it may be sent again, so it must not arrive."""
        with self._changed:
            self.entries[token].code = code
            self._changed.notify_all()

    def came(self, copy: Copy, place: str = SINK) -> None:
        """A copy arrived, or lies in ``emails/dead``."""
        with self._changed:
            self.arrivals += 1
            if copy.fault:
                self.faults.append(f"{copy.token or '?'} (id {copy.id or '?'}): {copy.fault}")
            if copy.token:
                self.ids.setdefault(copy.token, set()).add(copy.id)
            for recipient in copy.recipients:
                key = (copy.token, recipient, place)
                self.copies[key] += 1
                self._owed.discard(key)
            self._changed.notify_all()

    def owed(self, place: str | None = None) -> list[tuple[str, str, str]]:
        """What was promised and has not come: (token, recipient, place)."""
        with self._changed:
            return [key for key in self._owed if place in (None, key[2])]

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``condition`` holds; it is looked at whenever the book changes, and must not call the book's methods."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    def wait_for_promises(self, more: int, seconds: float) -> bool:
        """Wait for so many more 250s; False when they did not come in time."""
        wanted = self.promised + more
        return self.wait_until(lambda: self.promised >= wanted, seconds)

    def wait_for_sink(self, seconds_without_any: float) -> bool:
        """Wait until all that is owed by the provider has come; False once nothing has come for so long."""
        while True:
            before = self.arrivals
            deadline = time.monotonic() + seconds_without_any
            if self.wait_until(lambda: not any(key[2] == SINK for key in self._owed), seconds_without_any):
                return True
            if self.arrivals == before and time.monotonic() >= deadline:
                return False
