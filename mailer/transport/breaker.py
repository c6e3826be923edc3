"""A circuit breaker: after faults in a row a provider is left alone for a while, then one message probes it.

One lock guards the state; the clock is an argument. ``fault`` and ``success`` return the state the breaker has changed
to, so that its owner can tell others once no lock is held.
"""

from __future__ import annotations

import threading

FAULTS_TO_OPEN = 5  # in a row: one lost connection is weather, five are a provider that is down
FIRST_OPEN_SECONDS = 30.0
LONGEST_OPEN_SECONDS = 300.0
PROBE_LOST_SECONDS = 900.0
"""A probe without a result for three times the default ``processingTimeout`` is taken for lost, and the next may go."""
PROBE_RECHECK_SECONDS = 1.0  # when to look again while a probe is under way

CLOSED, OPEN, PROBING = "closed", "open", "probing"


class Breaker:
    """The breaker of one provider. All times are Unix seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self.state = CLOSED  # may be read without the lock
        self.faults = 0  # in a row; may be read without the lock
        self._open_seconds = 0.0  # of the present or last opening; 0 after a success
        self._until = 0.0  # OPEN: when a probe may go; PROBING: when it is taken for lost

    def __repr__(self) -> str:
        return f"Breaker({self.state}, faults={self.faults}, until={self._until:.0f})"

    def admit(self, now: float) -> tuple[bool, str | None]:
        """Whether a message may try, and ``"probing"`` if it is the probe: then ``fault``, ``success`` or ``release``
        must follow."""
        if self.state == CLOSED:
            return True, None  # the usual case, without the lock: whoever asks as it opens came before
        with self._lock:
            if self.state == CLOSED:
                return True, None
            if self._wait(now) > 0:
                return False, None
            self.state = PROBING
            self._until = now + PROBE_LOST_SECONDS
            return True, PROBING

    def release(self, now: float) -> None:
        """The probe did not take place: the next message may be it."""
        with self._lock:
            if self.state == PROBING:
                self.state = OPEN
                self._until = now

    def fault(self, now: float) -> str | None:
        """A fault of connection, TLS, login or 421. While open it says nothing new: a conversation begun before."""
        with self._lock:
            self.faults += 1
            if self.state == OPEN or (self.state == CLOSED and self.faults < FAULTS_TO_OPEN):
                return None
            self.state = OPEN
            self._open_seconds = min(self._open_seconds * 2 or FIRST_OPEN_SECONDS, LONGEST_OPEN_SECONDS)
            self._until = now + self._open_seconds
            return OPEN

    def success(self) -> str | None:
        """A conversation got past login."""
        with self._lock:
            was_closed = self.state == CLOSED
            self.state = CLOSED
            self.faults = 0
            self._open_seconds = 0.0
            return None if was_closed else CLOSED

    def open_at(self, now: float) -> float:
        """``now`` when a message may try, else the time to look again."""
        if self.state == CLOSED:
            return now  # as in ``admit``
        with self._lock:
            if self.state == CLOSED:
                return now
            wait = self._wait(now)
            return now + (min(wait, PROBE_RECHECK_SECONDS) if self.state == PROBING else wait)

    def _wait(self, now: float) -> float:
        """Seconds until the next probe; never more than was meant, though the clock be set back."""
        longest = self._open_seconds if self.state == OPEN else PROBE_LOST_SECONDS
        self._until = min(self._until, now + longest)
        return max(0.0, self._until - now)
