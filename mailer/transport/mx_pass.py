"""One pass over the mail servers of a domain (RFC 5321 5.1): the next where one cannot be had, until one answers.

A pass lives within one call and has no lock; ``Shunned``, which all passes of a domain share, has one. No lock is held while
a server is talked to. Never raises for what DNS or a server says or does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from mailer.mail.outcome import Delivery, Reply, Stage, Verdict
from mailer.transport.client import Conversation
from mailer.transport.faults import FOREIGN
from mailer.transport.manners import Manners
from mailer.transport.mx import HostAddresses, MailHost, Route, RouteFinder
from mailer.transport.tls import Policy
from mailer.transport.tls_policy import DomainPolicy, HostPolicy, Policies
from mailer.transport.transaction import Outcome, Transaction, failed, verdict_of

log = logging.getLogger(__name__)

CONNECT_SECONDS = 30.0  # for all addresses of one server; what does not answer by then is passed over
SET_UP_SECONDS = 60.0
"""For each step up to MAIL. RFC 5321 4.5.3.2.1 would give a greeting 5 minutes; but there is a next server to go to."""
ANSWER_SECONDS = 300.0  # for each step from MAIL on (RFC 5321 4.5.3.2.2, .3 and .5); ``processingTimeout`` bounds them all
SHUN_SECONDS = 300.0  # as long as a breaker stays open at most

_BEFORE_MAIL = frozenset({Stage.CONNECT, Stage.TLS, Stage.EHLO})
_OF_THE_DOMAIN = _BEFORE_MAIL | {Stage.MAIL, Stage.DATA}
"""Stages at which a temporary refusal concerns the domain; at RCPT it concerns that recipient (greylisting)."""
_SLOW_DOWN = frozenset({421, 450, 451, 452})
NOT_FIT_FOR_REQUIRETLS = "5.7.30"  # RFC 8689 4.2.1: the others are to be asked
_NO_SERVER = Verdict(Stage.CONNECT, Reply(451, "4.4.4", "domain has no mail server"))


class Means(Protocol):
    """What a pass needs of its surroundings."""

    @property
    def hostname(self) -> str: ...
    @property
    def routes(self) -> RouteFinder: ...
    @property
    def policies(self) -> Policies: ...


class Passed(NamedTuple):
    """What a pass came to, and the conversation that it ended with, perhaps never opened."""

    outcome: Outcome
    conversation: Conversation


class Shunned:
    """The servers of one domain that could not be reached of late: they are asked last, since one that swallows packets costs
    every message the half minute of ``CONNECT_SECONDS``. At most those of one route."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _until
        self._until: dict[str, float] = {}  # by server: monotonic

    def __repr__(self) -> str:
        return f"Shunned({sorted(self._until)})"

    def last(self, hosts: Sequence[MailHost]) -> list[MailHost]:
        """The same hosts in the order to ask, those shunned behind the others."""
        now = time.monotonic()
        with self._lock:
            self._until = {host.name: self._until[host.name] for host in hosts if self._until.get(host.name, now) > now}
            return sorted(hosts, key=lambda host: host.name in self._until)

    def note(self, server: str, was_reached: bool) -> None:
        with self._lock:
            if was_reached:
                self._until.pop(server, None)
            else:
                self._until[server] = time.monotonic() + SHUN_SECONDS


class Pass:
    """``meet(server)`` is told the domain's first server, and says how to treat it."""

    def __init__(
        self, domain: str, means: Means, delivery: Delivery, meet: Callable[[str], Manners], shunned: Shunned
    ) -> None:
        self._domain = domain
        self._means = means
        self._delivery = delivery
        self._meet = meet
        self._shunned = shunned

    def __repr__(self) -> str:
        return f"Pass({self._domain}, {self._delivery.envelope.id})"

    def run(self, kept: Conversation | None) -> Passed:
        """Over the kept connection, then over the servers, until one gives verdicts."""
        passed = None if kept is None else self._over(kept)
        if passed is not None and not passed.outcome.is_stale:
            if not _goes_on(passed.outcome):
                return passed
        else:
            passed = None
        self._delivery.watch.dialing()
        route = self._means.routes.find(self._domain)
        if isinstance(route, Verdict):
            return passed or Passed(self._same_for_all(route), self._new())
        passed = self._over_servers(route, passed)
        if self._is_tls_report:
            passed.conversation.leave()  # no policy bound it, so nobody else's mail may go over it
        return passed

    def _over_servers(self, route: Route, passed: Passed | None) -> Passed:
        """The servers in their order. ``passed``: over the kept connection, whose server is not asked again."""
        manners = self._meet(route.hosts[0].name)
        policy = self._policy(route, Policy(manners.tls))
        asked = server_of(passed.conversation) if passed is not None else ""
        to_ask = self._shunned.last([host for host in route.hosts if host.name != asked])
        while to_ask and (passed is None or (_goes_on(passed.outcome) and time.monotonic() < self._delivery.deadline)):
            if passed is not None:
                self._leave(passed)
                self._delivery.watch.dialing()
            passed = self._try(to_ask.pop(0), policy)
        return passed or Passed(self._same_for_all(_NO_SERVER), self._new())

    def _policy(self, route: Route, wanted: Policy) -> DomainPolicy:
        policies = self._means.policies
        if self._is_tls_report:
            return policies.of_report(route)
        return policies.of(route, self._delivery.envelope.options.require_tls, wanted)

    @property
    def _is_tls_report(self) -> bool:
        """Our reports to senders come from nobody; one that names a sender is a report about TLS."""
        envelope = self._delivery.envelope
        return envelope.options.is_report and bool(envelope.sender)

    def _leave(self, passed: Passed) -> None:
        """Go on to the next server, and say why."""
        outcome, conversation = passed
        conversation.leave()
        log.info(
            "delivery.mx_passed_over id=%s domain=%s mx=%s reply=%r stage=%s",
            self._delivery.envelope.id, self._domain, conversation.peer, str(outcome.reply), outcome.stage,
        )  # fmt: skip

    def _try(self, host: MailHost, policy: DomainPolicy) -> Passed:
        """One server: all of its addresses, TLS as the policy asks, and the transaction."""
        conversation = self._new()
        conversation.peer = host.name
        found = self._means.routes.addresses(host)
        if isinstance(found, Reply):
            return Passed(self._same_for_all(Verdict(Stage.CONNECT, found)), conversation)
        security = policy.of_host(host, found.is_authentic)
        if isinstance(security, Reply):
            stage = Stage.MAIL if security.is_permanent else Stage.TLS  # as where a server says that it has no REQUIRETLS
            return Passed(self._same_for_all(Verdict(stage, security)), conversation)
        try:
            self._open(conversation, host, found, security)
        except FOREIGN as error:
            conversation.close()
            self._shunned.note(host.name, conversation.stage is not Stage.CONNECT)
            return Passed(failed(self._delivery.recipients, conversation.stage, error), conversation)
        self._shunned.note(host.name, True)
        return self._over(conversation)

    def _open(self, conversation: Conversation, host: MailHost, found: HostAddresses, security: HostPolicy) -> None:
        """Bring it to where MAIL may be said. Raises one of FOREIGN."""
        conversation.deadline = self._delivery.deadline

        def reach() -> None:
            conversation.timeout = CONNECT_SECONDS
            conversation.dial(found.addresses)
            if conversation.sock is not None:
                conversation.peer = f"{host.name}[{conversation.sock.getpeername()[0]}]"
            conversation.timeout = SET_UP_SECONDS
            conversation.greet()

        reach()
        security.secure(conversation, reach)
        conversation.timeout = ANSWER_SECONDS

    def _over(self, conversation: Conversation) -> Passed:
        return Passed(Transaction(conversation, self._delivery, self._delivery.envelope.sender).run(), conversation)

    def _new(self) -> Conversation:
        return Conversation(self._means.hostname, CONNECT_SECONDS)

    def _same_for_all(self, verdict: Verdict) -> Outcome:
        """The same verdict for everyone, though no server was asked. It is the domain's fault, if it may pass."""
        verdict = verdict_of(verdict.stage, verdict.reply)
        verdicts = {recipient.index: verdict for recipient in self._delivery.recipients}
        return Outcome(verdicts, verdict.stage, verdict.reply, is_fault=verdict.stage in _BEFORE_MAIL)


def server_of(conversation: Conversation) -> str:
    """The name of the server that it is with."""
    return conversation.peer.partition("[")[0]


def is_ours(outcome: Outcome) -> bool:
    """Whether it ended on our side: the server had no part in it."""
    return any(verdict.stage is Stage.LOCAL for verdict in outcome.verdicts.values())


def says_slow_down(outcome: Outcome) -> bool:
    """Whether the server put off the sender or the message, rather than single recipients."""
    verdicts = outcome.verdicts.values()
    return any(verdict.reply.code in _SLOW_DOWN and verdict.stage in _OF_THE_DOMAIN for verdict in verdicts)


def _goes_on(outcome: Outcome) -> bool:
    """Whether the next server is to be asked: this one could not be had, or put us off before it answered for a recipient.

    Never once the message may have been delivered, and not for an answer: a 5xx to MAIL, RCPT or DATA holds for them all.
    """
    if is_ours(outcome) or any(verdict.is_delivered or verdict.in_doubt for verdict in outcome.verdicts.values()):
        return False
    if outcome.stage in _BEFORE_MAIL or outcome.is_fault:
        return True
    return outcome.stage is Stage.MAIL and (outcome.reply.is_transient or outcome.reply.enhanced == NOT_FIT_FOR_REQUIRETLS)
