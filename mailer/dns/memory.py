"""What was learnt and how long it holds: a bounded cache with one question under way for each key.

Whoever asks what is being asked waits for the same answer. One lock guards the entries and the questions under way; it is
not held while a question is asked. Nothing is kept of a question that raised: those who waited for it ask again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Question(Generic[V]):
    """A question under way: ``values`` holds the answer once ``is_over`` is set, unless asking raised."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.values: tuple[V, ...] = ()


class Memory(Generic[K, V]):
    """At most ``max_entries`` answers; the one that was not asked for the longest makes room. Any thread may ask."""

    def __init__(self, max_entries: int, clock: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._clock = clock
        self._lock = threading.Lock()  # guards both below
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()  # with the time when it no longer holds
        self._questions: dict[K, _Question[V]] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def __repr__(self) -> str:
        return f"Memory(entries={len(self._entries)}, asking={len(self._questions)})"

    def recall(self, key: K, ask: Callable[[], tuple[V, float]]) -> V:
        """The answer for ``key``; ``ask`` finds it, and the seconds that it holds, where it is not known."""
        while True:
            now = self._clock()
            with self._lock:
                known = self._entries.get(key)
                if known is not None and now < known[1]:
                    self._entries.move_to_end(key)
                    return known[0]
                question = self._questions.get(key)
                is_mine = question is None
                if question is None:
                    question = self._questions[key] = _Question()
            if is_mine:
                return self._ask(key, question, ask)
            question.is_over.wait()
            if question.values:
                return question.values[0]

    def forget(self) -> None:
        with self._lock:
            self._entries.clear()

    def _ask(self, key: K, question: _Question[V], ask: Callable[[], tuple[V, float]]) -> V:
        try:
            value, seconds = ask()
            question.values = (value,)
            expires_at = self._clock() + seconds
            with self._lock:
                self._entries[key] = value, expires_at
                self._entries.move_to_end(key)
                while len(self._entries) > self._max_entries:
                    self._entries.popitem(last=False)
            return value
        finally:
            with self._lock:
                del self._questions[key]
            question.is_over.set()
