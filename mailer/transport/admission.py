"""Whether a way may be tried now: its breaker, and the delay that a reply named. Providers and domains have one each.

Breaker and delay have a lock each; nothing here waits, and no lock is held while others are told. It cannot fail.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from mailer.events import BreakerChanged, Hub
from mailer.mail.outcome import Reply
from mailer.transport.breaker import CLOSED, PROBING, Breaker

log = logging.getLogger(__name__)

_LEVELS = {"provider": logging.WARNING, "direct": logging.INFO}
"""A provider that is down is somebody's concern here; one of a thousand domains that mail goes to is weather."""


BUSY = "busy"
"""Why none is granted while as many conversations as there may be are under way: the one reason that does not close the way,
so it is no reason to take another."""


class Admission(NamedTuple):
    """How many recipients may be tried now; or none until ``closed_until`` (Unix time) and ``why``: ``"breaker"``,
    ``"quota"``, ``"delay"`` or ``BUSY``. ``is_probe``: this attempt decides over an open breaker."""

    granted: int
    closed_until: float | None = None
    why: str = ""
    is_probe: bool = False


ONE = Admission(1)  # what nearly every attempt is granted
_PROBE = Admission(1, is_probe=True)


class Gate:
    """The gate of the way called ``name``. ``on_closed`` is called with the name when the breaker closes, from the thread
    that closed it. ``kind`` is ``"provider"`` or ``"direct"``, the first word of its log lines."""

    def __init__(self, name: str, hub: Hub, kind: str = "provider") -> None:
        self.name = name
        self.breaker = Breaker()
        self.on_closed: Callable[[str], None] | None = None
        self._hub = hub
        self._kind = kind
        self._lock = threading.Lock()  # guards all below
        self._delayed_until = 0.0
        self._delay_seconds = 0.0

    def __repr__(self) -> str:
        return f"Gate({self.breaker!r}, delayed_until={self._delayed_until:.0f})"

    @property
    def is_open(self) -> bool:
        """Whether nothing closes it. Reads without a lock: whoever asks as it closes came before."""
        return self.breaker.state == CLOSED and not self._delayed_until

    def admit(self, now: float) -> Admission:
        """One, the probe, or none. What is granted as the probe must be followed by ``fault``, ``success`` or ``release``."""
        if self.is_open:
            return ONE
        delayed_until = self.delayed_until(now)
        if delayed_until > now:
            return Admission(0, delayed_until, "delay")
        may_try, state = self.breaker.admit(now)
        if not may_try:
            return Admission(0, self.breaker.open_at(now), "breaker")
        return ONE if state is None else _PROBE

    def probe_begins(self) -> None:
        """Tell others that an admitted probe does take place."""
        self._hub.publish(BreakerChanged(self.name, PROBING))

    def open_at(self, now: float) -> float:
        """``now`` when a message may be tried, else the Unix time to look again."""
        return now if self.is_open else max(self.delayed_until(now), self.breaker.open_at(now))

    def delayed_until(self, now: float) -> float:
        """Until when a named delay closes the way; never longer than named, though the clock be set back."""
        if not self._delayed_until:
            return now
        with self._lock:
            self._delayed_until = min(self._delayed_until, now + self._delay_seconds)
            if self._delayed_until <= now:
                self._delayed_until = 0.0
            return max(now, self._delayed_until)

    def delay(self, seconds: float, now: float, reply: Reply) -> None:
        """Close the way for as long as ``reply`` names."""
        with self._lock:
            self._delayed_until, self._delay_seconds = now + seconds, seconds
        log.log(_LEVELS[self._kind], "%s.delay name=%s seconds=%.0f reply=%r", self._kind, self.name, seconds, str(reply))

    def fault(self, now: float, reply: Reply) -> bool:
        """Count a fault of the kind that opens the breaker. True when it has opened."""
        change = self.breaker.fault(now)
        if change is None:
            return False
        seconds = self.breaker.open_at(now) - now
        log.log(
            _LEVELS[self._kind], "%s.breaker_open name=%s seconds=%.0f reply=%r", self._kind, self.name, seconds, str(reply)
        )
        self._hub.publish(BreakerChanged(self.name, change))
        return True

    def success(self) -> None:
        """A conversation got as far as mail: an open breaker closes."""
        change = self.breaker.success()
        if change is None:
            return
        self._hub.publish(BreakerChanged(self.name, change))
        log.info("%s.breaker_closed name=%s", self._kind, self.name)
        if self.on_closed is not None:
            self.on_closed(self.name)

    def clear(self) -> None:
        """Close an open breaker and forget a named delay: someone knows better (``POST /admin/retry-failed``)."""
        with self._lock:
            self._delayed_until = 0.0
        self.success()
