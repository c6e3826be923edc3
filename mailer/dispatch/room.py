"""How much room the queue has, counted off while messages for it are looked for on disk.

No threads, no locks of its own: a ``Room`` belongs to the one thread that fetches, and reads the queue as it needs to know.
What it promises may be gone by the time that a message is offered: then the queue refuses it, and it stays on disk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from mailer.dispatch.queue import FairQueue


class Room:
    """The places that were free in a queue, counted off while messages for them are looked for on disk.

    ``ways_of(lane)`` names the ways that a message of the lane may be tried at first: a place at any of them is one.
    ``lacking``: the ways at which something found no place. Owned by one thread; it reads the queue as it needs to know.
    """

    def __init__(self, queue: FairQueue, ways_of: Callable[[str], Sequence[str]]) -> None:
        self._queue = queue
        self._ways_of = functools.cache(ways_of)
        self.left = queue.room
        self.lacking: set[str] = set()
        self._ways: dict[str, int] = {}
        self._senders: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        return f"Room(left={self.left}, ways={self._ways}, lacking={sorted(self.lacking)})"

    def is_left(self, lane: str) -> bool:
        ways = self._ways_of(lane)
        if any(self._ways.get(way, 1) > 0 for way in ways):
            return self.left > 0
        self.lacking.update(ways)
        return False

    def take(self, lane: str, sender: str) -> bool:
        if self.left <= 0:
            return False
        for way in self._ways_of(lane):
            key = way, sender
            if key not in self._senders:
                of_way, self._senders[key] = self._queue.free(way, sender)
                self._ways.setdefault(way, of_way)
            if self._ways[way] > 0 and self._senders[key] > 0:
                self._ways[way] -= 1
                self._senders[key] -= 1
                self.left -= 1
                return True
        self.lacking.update(self._ways_of(lane))
        return False
