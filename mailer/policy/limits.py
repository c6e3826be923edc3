"""How much may be submitted: messages per sender and in all, in sliding windows of an hour and a day (spec 2, rateLimits).

A message is counted when it is reserved, and given back when it is refused or aborted, so that many sessions at once
cannot overshoot. The counts, their lock and their bound are ``mailer.window.Windows``'; here only the rules live.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mailer.config.schema import RateLimitsConfig
from mailer.events import Hub, SubmissionRefused
from mailer.mail.address import Address
from mailer.window import Limits, Windows

log = logging.getLogger(__name__)

GLOBAL = "global"
"""The name under which every message counts."""


class Reservation:
    """Room for one message. ``keep`` it once the message is accepted, ``release`` it otherwise; the first call decides.

    One session owns it, so it needs no lock; one that holds nothing never changes, and is shared.
    """

    __slots__ = ("_names", "_windows")

    def __init__(self, windows: Windows, names: Sequence[str]) -> None:
        self._windows = windows
        self._names = names

    def keep(self) -> None:
        if self._names:
            self._names = ()

    def release(self, now: float) -> None:
        names = self._names
        if names:
            self._names = ()
        for name in names:
            self._windows.give_back(name, 1, now)


class RateLimiter:
    """Reserves room for messages by envelope sender, whatever its letter case, and in all.

    The null sender and our own reports count globally only. ``configure`` may be called from any thread.
    """

    def __init__(self, config: RateLimitsConfig, windows: Windows, hub: Hub) -> None:
        self._windows = windows
        self._hub = hub
        self._config = config
        self._uncounted = Reservation(windows, ())

    def __repr__(self) -> str:
        return f"RateLimiter(enabled={self._config.enabled})"

    def configure(self, config: RateLimitsConfig) -> None:
        """Go by these limits from now on; what is counted already stays counted."""
        self._config = config

    def reserve(self, sender: Address, now: float) -> Reservation | None:
        """Room for one message at Unix time ``now``; None when a limit is reached (logged and published here)."""
        config = self._config
        if not config.enabled:
            return self._uncounted
        held: list[str] = []
        rules = [(GLOBAL, Limits(config.global_max_per_hour, config.global_max_per_day))]
        if sender:
            rules.insert(0, (name_of(sender), Limits(config.max_per_hour, config.max_per_day)))
        for name, limits in rules:
            if not self._windows.take(name, 1, limits, now):
                for other in held:
                    self._windows.give_back(other, 1, now)
                self._refuse(sender, "global" if name == GLOBAL else "sender", limits)
                return None
            held.append(name)
        return Reservation(self._windows, held)

    def count_report(self, now: float) -> None:
        """A report of our own was stored at Unix time ``now``: it takes room from others, and is never refused."""
        if self._config.enabled:
            self._windows.take(GLOBAL, 1, Limits(0, 0), now)

    def _refuse(self, sender: Address, scope: str, limits: Limits) -> None:
        log.warning(
            "limits.reached scope=%s from=%s max_per_hour=%d max_per_day=%d",
            scope,
            sender or "<>",
            limits.per_hour,
            limits.per_day,
        )
        self._hub.publish(SubmissionRefused("rate"))


def name_of(sender: Address) -> str:
    """The name that a sender counts under: ``sender:local@domain`` without letter case."""
    return f"sender:{sender.local_part.casefold()}@{sender.domain_key}"
