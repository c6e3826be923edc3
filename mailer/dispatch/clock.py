"""A clock that was wrong and is set right: mail that waits by the wrong one must not wait for years (spec 6).

Due times are Unix time, so that they outlive the process. A clock set forward makes what waits due early, which does no
harm. One set back would make it wait longer by as much; so whatever waits is due at once then. What was set right while
nobody looked, or while the program did not run, shows in due times beyond any wait.

``look`` is called by one thread, every 15 seconds at least. A spool that cannot be written is logged; the next look makes up
for it.
"""

from __future__ import annotations

import logging

from mailer.dispatch.schedule import Schedule
from mailer.spool.store import SpoolError, Store

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 86400.0
"""Of a spent quota: a day. The wait between rounds may be configured to be longer."""


LOOK_SECONDS = 15.0
"""How often what waits too long is looked for: a few seeks a lane."""


class ClockGuard:
    """See the module."""

    def __init__(self, store: Store, schedule: Schedule) -> None:
        self._store = store
        self._schedule = schedule
        self._seen_at = 0.0
        self._mend_at = 0.0

    def __repr__(self) -> str:
        return f"ClockGuard(seen_at={self._seen_at:.0f})"

    def look(self, now: float, interval_seconds: float) -> bool:
        """Mend what waits too long. Returns whether the clock was set back since the last look; then all that waits is due.

        ``interval_seconds``: the longest wait between rounds.
        """
        back, self._seen_at = self._seen_at - now, now
        if back > 0:
            log.warning("clock.set_back seconds=%.0f: what waits is tried now", back)
            self._mend_at = now
        if now >= self._mend_at:
            self._mend_at = now + LOOK_SECONDS
            self._mend(now, now if back > 0 else now + max(interval_seconds, LONGEST_WAIT_SECONDS))
        return back > 0

    def _mend(self, now: float, latest: float) -> None:
        try:
            count = self._store.bring_forward(now, latest)
        except SpoolError as fault:
            log.error("clock.not_mended error=%r: tried again soon", str(fault))
            return
        if count:
            log.warning("clock.mended messages=%d: they were to wait longer than any message does, and are tried now", count)
        self._schedule.look_again()  # its own times may be of the wrong clock too
