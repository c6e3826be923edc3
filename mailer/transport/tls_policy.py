"""What TLS a recipient's server must offer, and how it is brought about.

Without a policy: STARTTLS wherever it is offered, whatever the certificate (RFC 7435), and clear text over a new connection
where it fails. ``Policies`` is asked once for a domain, the ``DomainPolicy`` once for each of its hosts.

No threads. One lock guards the contexts, which are built when first needed. ``secure`` fails by raising one of
``faults.FOREIGN`` with the conversation's ``stage`` at TLS.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import Protocol

from mailer.config.schema import Config
from mailer.mail.outcome import MailerError, Reply, Stage
from mailer.transport.client import Conversation
from mailer.transport.faults import FOREIGN, Fault
from mailer.transport.tls import Policy, TrustStore, client_context


class _Host(Protocol):
    @property
    def name(self) -> str: ...


class _Route(Protocol):
    @property
    def domain(self) -> str: ...

    @property
    def is_authentic(self) -> bool: ...


class Policies:
    """The TLS policies of all domains."""

    def __init__(self, config: Config, dns: object, trust_store: TrustStore, clock: Callable[[], float] = time.time) -> None:
        self._dns = dns
        self._trust_store = trust_store
        self._clock = clock
        self._lock = threading.Lock()  # guards _contexts
        self._contexts: dict[bool, ssl.SSLContext] = {}  # by whether they verify
        self._skips_verify = False
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take on a configuration, and read the trust store anew."""
        self._skips_verify = config.direct_delivery.insecure_skip_verify
        with self._lock:
            self._contexts = {}

    def of(self, route: _Route, require_tls: bool, wanted: Policy = Policy.OPPORTUNISTIC) -> DomainPolicy:
        """What holds for the servers of ``route``. ``wanted``: the domain's ``tls`` setting. May ask DNS and fetch, so it
        waits."""
        if require_tls:
            wanted = Policy.REQUIRED
        return DomainPolicy(self, route.domain, wanted)

    def context(self, verifies: bool) -> ssl.SSLContext:
        """A context that verifies, or one that takes any certificate. Raises Fault."""
        verifies = verifies and not self._skips_verify
        with self._lock:
            contexts = self._contexts
            context = contexts.get(verifies)
        if context is None:
            try:
                context = client_context(self._trust_store() if verifies else None)
            except MailerError as error:
                raise Fault(Reply(454, "4.7.5", str(error))) from error
            with self._lock:
                contexts[verifies] = context  # in the dictionary of before: a new configuration has one of its own
        return context


class DomainPolicy:
    """What holds for one domain, for one delivery."""

    def __init__(self, policies: Policies, domain: str, wanted: Policy) -> None:
        self._policies = policies
        self.domain = domain
        self._wanted = wanted

    def of_host(self, host: _Host, host_is_authentic: bool) -> HostPolicy | Reply:  # noqa: ARG002
        """What holds for one of its hosts; a Reply where the host must not be used."""
        return HostPolicy(self._policies, host.name, self._wanted)


class HostPolicy:
    """What holds for one host, for one delivery."""

    def __init__(self, policies: Policies, host: str, wanted: Policy) -> None:
        self._policies = policies
        self._host = host
        self._wanted = wanted

    def secure(self, conversation: Conversation, reconnect: Callable[[], None]) -> None:
        """STARTTLS as the policy asks, and EHLO again. ``reconnect`` dials and greets anew."""
        if self._wanted is Policy.NONE:
            return
        must = self._wanted is Policy.REQUIRED
        if "STARTTLS" not in conversation.extensions:
            if must:
                conversation.stage = Stage.TLS
                raise Fault(Reply(454, "4.7.0", "TLS is required and the server does not offer STARTTLS"))
            return
        try:
            conversation.start_tls(self._context(conversation, must), self._host)
        except FOREIGN:
            if must:
                raise
            conversation.close()
            reconnect()
        else:
            conversation.introduce()

    def _context(self, conversation: Conversation, verifies: bool) -> ssl.SSLContext:
        conversation.stage = Stage.TLS
        return self._policies.context(verifies)
