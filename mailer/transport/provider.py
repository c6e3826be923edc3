"""One provider as a way for mail: admission (breaker, named delay, quota), one attempt at a time, one log line each.

Any number of threads may call it. Gate, pool and windows have locks of their own; none is held while a peer is talked to
or a callback runs. ``deliver`` never raises for what a server says or does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from mailer.config.schema import ProviderConfig
from mailer.events import Hub, ProviderStatus
from mailer.mail.outcome import Delivery, Reply, Stage, Verdict
from mailer.transport import breaker
from mailer.transport.admission import ONE, Admission, Gate
from mailer.transport.client import Conversation
from mailer.transport.faults import FOREIGN, reply_for
from mailer.transport.oauth2 import TokenSource
from mailer.transport.peer import Peer, Surroundings
from mailer.transport.pool import Pool
from mailer.transport.rewrite import Rewriter
from mailer.transport.transaction import Outcome, Transaction, failed
from mailer.window import Limits, Windows

log = logging.getLogger(__name__)

_BEFORE_MAIL = frozenset({Stage.CONNECT, Stage.TLS, Stage.EHLO, Stage.LOGIN})
_CLOSES_PROVIDER = _BEFORE_MAIL | {Stage.MAIL, Stage.DATA}
"""Stages at which a named delay concerns the provider; at RCPT it concerns that recipient (greylisting)."""

CHECK_STEPS = 3  # a login check may take three times the time-out of a step in all


class Provider:
    """A Transport. ``on_breaker_closed`` is called with the provider's name, from the thread that closed it."""

    def __init__(
        self, config: ProviderConfig, hostname: str, windows: Windows, hub: Hub, surroundings: Surroundings | None = None
    ) -> None:
        self.config = config
        self.name = config.name
        surroundings = surroundings or Surroundings()
        self._clock = surroundings.clock
        self._windows = windows
        self._window = f"provider:{config.name}"
        self._limits = Limits(config.max_per_hour, config.max_per_day)
        self._is_counted = bool(config.max_per_hour or config.max_per_day)  # what has no quota need not be counted
        self.tokens = TokenSource(config.oauth2, surroundings) if config.oauth2 is not None else None
        self._peer = Peer(config, hostname, surroundings, self.tokens)
        self._rewriter = Rewriter.of(config)
        self._pool = Pool(config.max_connections)
        self._gate = Gate(config.name, hub)
        self.last_delivered_at: float | None = None  # written without a lock: the last one wins, and any is right

    def __repr__(self) -> str:
        return f"Provider({self.name!r}, {self._gate!r}, {self._pool!r})"

    @property
    def on_breaker_closed(self) -> Callable[[str], None] | None:
        return self._gate.on_closed

    @on_breaker_closed.setter
    def on_breaker_closed(self, tell: Callable[[str], None] | None) -> None:
        self._gate.on_closed = tell

    @property
    def is_broken(self) -> bool:
        """Whether the breaker is not closed."""
        return self._gate.breaker.state != breaker.CLOSED

    # admission

    def admit(self, wanted: int, now: float, forced: bool = False) -> Admission:
        """Reserve quota for up to ``wanted`` recipients, and the probe's place if the breaker asks for one.

        What is granted must be followed by ``deliver`` with exactly that many recipients, or by ``release``.
        ``forced`` (an expiring message's last chance) passes an open breaker and a delay, never the quota.
        """
        may_try = ONE if forced or self._gate.is_open else self._gate.admit(now)
        if not may_try.granted:
            return may_try
        granted = self._windows.take(self._window, wanted, self._limits, now) if self._is_counted else wanted
        if granted == 0:
            if may_try.is_probe:
                self._gate.breaker.release(now)
            return Admission(0, self._windows.free_at(self._window, self._limits, now), "quota")
        if may_try.is_probe:
            self._gate.probe_begins()
        return may_try if granted == 1 else Admission(granted, is_probe=may_try.is_probe)

    def release(self, admission: Admission, now: float) -> None:
        """What was admitted did not take place."""
        if self._is_counted:
            self._windows.give_back(self._window, admission.granted, now)
        if admission.is_probe:
            self._gate.breaker.release(now)

    def open_at(self, now: float) -> float:
        """``now`` when a message may be tried, else the Unix time to look again; reserves nothing."""
        open_at = now if self._gate.is_open else self._gate.open_at(now)
        return max(open_at, self._windows.free_at(self._window, self._limits, now)) if self._is_counted else open_at

    # the attempt

    def deliver(self, delivery: Delivery) -> Mapping[int, Verdict]:
        """Try once. The recipients are those that ``admit`` granted."""
        started = time.monotonic()
        claimed, kept = self._pool.claim()
        if not claimed:
            reply = Reply(451, "4.3.2", f"all {self.config.max_connections} connections to the provider are in use")
            outcome = Outcome({r.index: Verdict(Stage.LOCAL, reply) for r in delivery.recipients}, Stage.LOCAL, reply)
            self._note_use(delivery, outcome, self._clock())
            return outcome.verdicts
        outcome, conversation = self._try(delivery, kept)
        now = self._clock()
        self._pool.end(conversation, now)
        delivered = self._note_use(delivery, outcome, now)
        if outcome.is_fault or self._gate.breaker.faults:  # a breaker that is not closed has counted some
            self._note_health(outcome, now)  # else a fault that another notes at this moment counts as the later one
        log.info(
            "delivery.attempt id=%s provider=%s recipients=%d delivered=%d reply=%r stage=%s seconds=%.3f "
            "connection=%s tls=%s",
            delivery.envelope.id, self.name, len(delivery.recipients), delivered, str(outcome.reply), outcome.stage,
            time.monotonic() - started, "kept" if conversation is kept else "new", conversation.tls or "none",
        )  # fmt: skip
        return outcome.verdicts

    def _try(self, delivery: Delivery, kept: Conversation | None) -> tuple[Outcome, Conversation]:
        """Over the kept connection; over a new one if there is none, or if it died while it was idle."""
        sender = delivery.envelope.sender
        if self._rewriter is not None:
            sender = self._rewriter.sender(sender)
            delivery = delivery._replace(render=self._rewriter.render(delivery.render))
        if kept is not None:
            outcome = Transaction(kept, delivery, sender).run()
            if not outcome.is_stale:
                return outcome, kept
            log.debug("delivery.stale_connection id=%s provider=%s", delivery.envelope.id, self.name)
        conversation = self._peer.conversation()
        try:
            self._peer.open(conversation, delivery.deadline)
        except FOREIGN as error:
            return failed(delivery.recipients, conversation.stage, error), conversation
        return Transaction(conversation, delivery, sender).run(), conversation

    def _note_use(self, delivery: Delivery, outcome: Outcome, now: float) -> int:
        """What an attempt means for quota and delay. Returns how many recipients were delivered to."""
        delivered = in_doubt = 0
        delay = 0.0
        for verdict in outcome.verdicts.values():
            if verdict.is_delivered:
                delivered += 1
                continue
            in_doubt += verdict.in_doubt
            if verdict.closed_for_seconds and verdict.stage in _CLOSES_PROVIDER:
                delay = max(delay, verdict.closed_for_seconds)
        if self._is_counted:
            self._windows.give_back(self._window, len(delivery.recipients) - delivered - in_doubt, now)
        if delivered:
            self.last_delivered_at = now
        if delay:
            self._gate.delay(delay, now, outcome.reply)
        return delivered

    def _note_health(self, outcome: Outcome, now: float) -> None:
        if not outcome.is_fault:
            self._gate.success()
        elif self._gate.fault(now, outcome.reply):
            self._pool.flush()  # what is idle now was opened before the trouble: the probe shall not be judged by it

    # care

    def close_breaker(self) -> None:
        """Close an open breaker and forget a named delay: someone knows better (``POST /admin/retry-failed``)."""
        self._gate.clear()

    def check_login(self) -> Reply:
        """Connect, secure, log in and quit. Touches neither breaker nor quota. ``Reply.is_success`` says whether it went."""
        conversation = self._peer.conversation()
        try:
            self._peer.open(conversation, time.monotonic() + CHECK_STEPS * self.config.timeout)
        except FOREIGN as error:
            reply = reply_for(error)
            return replace(reply, text=f"{reply.text} (at {conversation.stage.value})")
        tls = conversation.tls or "no TLS"
        conversation.leave()
        what = "login accepted" if self.config.username else "server answers"
        return Reply(250, "2.0.0", f"{what}, {tls}")

    def status(self, now: float) -> ProviderStatus:
        open_at = self.open_at(now)
        closers = (
            ("delay", self._gate.delayed_until(now)),
            ("breaker", self._gate.breaker.open_at(now)),
            ("quota", self._windows.free_at(self._window, self._limits, now)),
        )
        hour_used, day_used = self._windows.counts(self._window, now) if self._is_counted else (0, 0)
        return ProviderStatus(
            name=self.name,
            breaker=self._gate.breaker.state,
            why_closed=next((why for why, until in closers if until > now), ""),
            open_at=open_at if open_at > now else None,
            connections=self._pool.connections,
            hour_used=hour_used,
            day_used=day_used,
            last_delivered_at=self.last_delivered_at,
        )

    def tend(self, now: float) -> None:
        """What is to be done now and then: close idle connections, renew a token that is about to expire."""
        self._pool.reap(now)
        if self.tokens is not None:
            self.tokens.renew_ahead(now)

    def forget_trust(self) -> None:
        """Read the trust store anew for the next connection."""
        self._peer.forget_trust()

    def close(self) -> None:
        """Close idle connections now and the others as they end; deliveries under way finish."""
        self._pool.close()
