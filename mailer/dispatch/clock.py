"""A clock that was wrong and is set right: mail that waits by the wrong one must not wait for years (spec 6).

Due times are Unix time, so that they outlive the process. A clock set forward makes what waits due early, which does no
harm. One set back would make it wait longer by as much; so whatever waits is due at once then. What was set right while the
program did not run shows in due times beyond any wait.

``look`` is called by one thread, at least every minute: less than that may go unseen, and makes mail late by no more.
``mend`` may be called by any thread. A spool that cannot be written is logged; the next ``mend`` makes up for it.
"""

from __future__ import annotations

import logging

from mailer.dispatch.schedule import Schedule
from mailer.spool.store import SpoolError, Store

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 86400.0
"""Of a spent quota: a day. The wait between rounds may be configured to be longer."""


class ClockGuard:
    """See the module."""

    def __init__(self, store: Store, schedule: Schedule) -> None:
        self._store = store
        self._schedule = schedule
        self._seen_at = 0.0

    def __repr__(self) -> str:
        return f"ClockGuard(seen_at={self._seen_at:.0f})"

    def look(self, now: float) -> bool:
        """Whether the clock was set back since the last look; then all that waits is due."""
        back, self._seen_at = self._seen_at - now, now
        if back <= 0:
            return False
        log.warning("clock.set_back seconds=%.0f: what waits is tried now", back)
        self._bring_forward(now, now)
        self._schedule.look_again()  # its own times are of the wrong clock too
        return True

    def mend(self, now: float, interval_seconds: float) -> None:
        """Make due what would wait longer than anything does; ``interval_seconds``: the longest wait between rounds."""
        count = self._bring_forward(now, now + max(interval_seconds, LONGEST_WAIT_SECONDS))
        if count:
            self._schedule.look_again()
            log.warning("clock.was_wrong messages=%d: they were to wait longer than any message does, and are tried now", count)

    def _bring_forward(self, now: float, latest: float) -> int:
        try:
            return self._store.bring_forward(now, latest)
        except SpoolError as fault:
            log.error("clock.not_mended error=%r: tried again later", str(fault))
            return 0
