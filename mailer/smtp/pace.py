"""How patient the listener is with a client: the wait for input, and the floor on the rate of a message's data.

No threads, no locks; a ``DataRate`` belongs to the session that reads the message. Too slow is ``Disconnect``.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailer.smtp.replies import TOO_SLOW, Disconnect

RATE_WINDOW_SECONDS = 30.0
"""The rate of a DATA sender is judged over so long: shorter would punish a client that pauses to render an attachment."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a wire is: seconds to wait for a command line or for more content, bytes a second of content (0: any)."""

    idle_seconds: float
    min_data_rate: float


class DataRate:
    """Judges the rate of one message's data, a window at a time; the last, unfinished window is never judged."""

    __slots__ = ("_ends", "_from", "_least")

    def __init__(self, min_data_rate: float, now: float, received: int) -> None:
        self._least = min_data_rate * RATE_WINDOW_SECONDS
        self._ends = now + RATE_WINDOW_SECONDS
        self._from = received

    def check(self, now: float, received: int) -> None:
        if now < self._ends:
            return
        if received - self._from < self._least:
            raise Disconnect(TOO_SLOW, "data came too slowly")
        self._ends = now + RATE_WINDOW_SECONDS
        self._from = received
