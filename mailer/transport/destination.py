"""One recipient domain as a way for mail: a pass over its mail servers, its kept connections, and how much it bears.

Any number of threads may call it. Gate, pool and site have locks of their own; ``_lock`` guards the conversations that
may be under way. It is held together with a site's alone, in this order; none is held while a peer is talked to or a
callback runs. ``deliver`` never raises for what DNS or a server says or does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mailer.events import Hub
from mailer.mail.outcome import DIRECT_PREFIX, Delivery, Stage, Verdict
from mailer.transport.admission import BUSY, ONE, Admission, Gate
from mailer.transport.breaker import PROBING
from mailer.transport.manners import BUSY_SECONDS, Book, Manners, Site
from mailer.transport.mx import RouteFinder
from mailer.transport.mx_pass import NOT_FIT_FOR_REQUIRETLS, Pass, Shunned, is_ours, says_slow_down
from mailer.transport.pool import Pool
from mailer.transport.tls_policy import Policies
from mailer.transport.transaction import Outcome

log = logging.getLogger(__name__)

FIRST_CONVERSATIONS = 2
"""At once with a domain never seen; one more for each that goes well (slow start), half of them after a fault."""
IDLE_SECONDS = 5.0
"""How long a connection to a stranger's server is kept: for the next message of a burst, and no burden to them."""

_TOO_MANY_RECIPIENTS = "4.5.3"  # RFC 3463 3.6: with 452, for a recipient beyond the server's limit


@dataclass(frozen=True)
class Means:
    """What all destinations work with under one configuration. The callbacks are called without a lock held.

    ``site_of(name)``: the site of that name; ``kept(destination)``: it has an idle connection now.
    """

    hostname: str
    book: Book
    routes: RouteFinder
    policies: Policies
    clock: Callable[[], float]
    hub: Hub
    site_of: Callable[[str], Site | None]
    kept: Callable[[Destination], None]
    limit_changed: Callable[[str, int], None]
    breaker_closed: Callable[[str], None]


class Destination:
    """A Transport; its name is ``direct:`` and the domain. ``means`` is replaced whole by a new configuration."""

    def __init__(self, domain: str, means: Means) -> None:
        self.domain = domain
        self.name = DIRECT_PREFIX + domain
        self.means = means
        self._gate = Gate(self.name, means.hub, "direct")
        self._gate.on_closed = self._tell_closed
        self._pool = Pool(0, IDLE_SECONDS)
        self._shunned = Shunned()
        self.used_at = means.clock()  # written without a lock: any of the last is right
        self._lock = threading.Lock()  # guards all below
        self._manners = means.book.manners(domain)
        self._site: Site | None = None
        self._window = self._told = min(FIRST_CONVERSATIONS, self._manners.connections)
        self._in_use = 0
        self._is_retired = False
        self._most_recipients = self._manners.recipients_per_message

    def __repr__(self) -> str:
        return f"Destination({self.domain}, {self._gate!r}, {self._pool!r}, in_use={self._in_use}/{self._window})"

    @property
    def limit(self) -> int:
        """How many conversations there may be at once now."""
        with self._lock:
            return min(self._window, self._manners.connections)

    @property
    def connections(self) -> int:
        return self._pool.connections

    def retire(self, now: float) -> bool:
        """End its use, so that it can be forgotten: if nobody uses it, and nothing keeps mail from it."""
        if self._gate.breaker.state == PROBING or self._gate.open_at(now) > now:
            return False
        with self._lock:
            self._is_retired = self._is_retired or self._in_use == 0
            return self._is_retired

    # admission

    def admit(self, wanted: int, now: float, forced: bool = False) -> Admission | None:
        """Reserve a conversation for up to ``wanted`` recipients, and the probe's place if the breaker asks for one.

        What is granted must be followed by ``deliver``, or by ``release``. ``forced`` passes an open breaker and a delay.
        None when this destination was retired: there is another in its place, or will be.
        """
        self.used_at = now
        may_try = ONE if forced else self._gate.admit(now)
        if not may_try.granted:
            return may_try
        entered = self._enter(wanted, now)
        if entered is None or entered.granted == 0:
            if may_try.is_probe:
                self._gate.breaker.release(now)
        elif may_try.is_probe:
            self._gate.probe_begins()
            return entered._replace(is_probe=True)
        return entered

    def release(self, admission: Admission, now: float) -> None:
        """What was admitted did not take place."""
        self._leave()
        if admission.is_probe:
            self._gate.breaker.release(now)

    def open_at(self, now: float) -> float:
        """``now`` when a message may be tried, else the Unix time to look again; reserves nothing."""
        return self._gate.open_at(now)

    def _enter(self, wanted: int, now: float) -> Admission | None:
        """Begin a conversation, if there may be a further one. None when retired."""
        with self._lock:
            if self._is_retired:
                return None
            if self._in_use >= min(self._window, self._manners.connections):
                return Admission(0, now + BUSY_SECONDS, BUSY)
            wait_until = None if self._site is None else self._site.enter(self._manners.connections, now)
            if wait_until is not None:
                return Admission(0, wait_until, BUSY)
            self._in_use += 1
            return Admission(min(wanted, self._most_recipients))

    def _leave(self) -> None:
        with self._lock:
            self._in_use -= 1
            if self._site is not None:
                self._site.move(-1)

    # the attempt

    def deliver(self, delivery: Delivery) -> Mapping[int, Verdict]:
        """Try once: one pass over the domain's servers. The recipients are those that ``admit`` granted."""
        started = time.monotonic()
        means = self.means
        # RFC 8689: REQUIRETLS is about the whole conversation, so one that was begun without it does not serve.
        _, kept = self._pool.claim(may_reuse=not delivery.envelope.options.require_tls)
        try:
            outcome, conversation = Pass(self.domain, means, delivery, self._meet, self._shunned).run(kept)
            now = means.clock()
            if self.means is not means:
                conversation.leave()  # what was opened under another configuration may be less than this one asks for
            self._pool.end(conversation, now)  # before the place is free: whoever takes it may find this connection
        finally:
            self._leave()
        is_unfit = outcome.stage is Stage.TLS or outcome.reply.enhanced == NOT_FIT_FOR_REQUIRETLS
        asks_more = delivery.envelope.options.require_tls and is_unfit
        delivered = self._note(outcome, now, is_ours(outcome) or asks_more)
        if self._pool.has_idle:
            means.kept(self)
        log.info(
            "delivery.attempt id=%s domain=%s mx=%s recipients=%d delivered=%d reply=%r stage=%s seconds=%.3f "
            "connection=%s tls=%s",
            delivery.envelope.id, self.domain, conversation.peer or "none", len(delivery.recipients), delivered,
            str(outcome.reply), outcome.stage, time.monotonic() - started,
            "kept" if conversation is kept else "new", conversation.tls or "none",
        )  # fmt: skip
        return outcome.verdicts

    # what an attempt means for the next ones

    def _note(self, outcome: Outcome, now: float, says_nothing: bool) -> int:
        """Draw the conclusions; none where the fault is ours, or the message asks more of the servers than others do.
        Returns how many recipients were delivered to."""
        delivered = too_many = 0
        delay = 0.0
        for verdict in outcome.verdicts.values():
            delivered += verdict.is_delivered
            if verdict.stage is not Stage.RCPT:
                delay = max(delay, verdict.closed_for_seconds or 0.0)
            too_many += verdict.reply.enhanced == _TOO_MANY_RECIPIENTS
        if says_nothing:
            self._gate.breaker.release(now)  # if it was the probe, it decided nothing
            return delivered
        is_bad = outcome.is_fault or says_slow_down(outcome)
        if delay:
            self._gate.delay(delay, now, outcome.reply)
        if not is_bad:
            self._gate.success()
        elif self._gate.fault(now, outcome.reply):
            self._pool.flush()  # opened before the trouble: the probe shall not be judged by it
        self._resize(is_bad, len(outcome.verdicts) - too_many if too_many else 0)
        return delivered

    def _resize(self, is_bad: bool, taken: int) -> None:
        """Slow start: one conversation more, or half of them. ``taken``: recipients after which the server took no more."""
        with self._lock:
            most = self._manners.connections
            self._window = max(1, min(self._window, most) // 2) if is_bad else min(self._window + 1, most)
            if taken:
                self._most_recipients = taken
            limit, told = min(self._window, most), self._told
            self._told = limit
        if limit != told:
            self.means.limit_changed(self.name, limit)

    def _meet(self, server: str) -> Manners:
        """Take on the manners towards ``server``, the first of the domain's MX hosts, and what it shares with others."""
        means = self.means
        manners = means.book.manners(self.domain, server)
        site = means.site_of(manners.site)
        self._pool.messages = manners.messages_per_connection
        with self._lock:
            if manners != self._manners:
                self._manners = manners
                self._most_recipients = manners.recipients_per_message
            self._move_to(site)
        return manners

    def _move_to(self, site: Site | None) -> None:
        """The conversations under way count there from now on. The lock is held."""
        if site is self._site:
            return
        if self._site is not None:
            self._site.move(-self._in_use)
        if site is not None:
            site.move(self._in_use)
        self._site = site

    # care

    def clear(self) -> None:
        """Close an open breaker and forget a named delay: someone knows better (``POST /admin/retry-failed``)."""
        self._gate.clear()

    def tend(self, now: float) -> bool:
        """Close connections that are idle for too long. Whether some are left."""
        self._pool.reap(now)
        return self._pool.has_idle

    def close(self) -> None:
        """Close idle connections now and the others as they end; deliveries under way finish."""
        self._pool.close()

    def _tell_closed(self, name: str) -> None:
        self.means.breaker_closed(name)
