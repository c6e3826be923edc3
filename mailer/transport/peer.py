"""How a conversation with one provider is opened: resolve, connect, TLS, EHLO, login, in the order the policy asks for.

No threads and no lock of its own; any thread may call ``open``. The TLS context is built when first needed; two threads
may build it at once, and either result serves. ``forget_trust`` replaces the place where it is kept, so that one which
was begun before does not come to stand there afterwards. Fails by raising one of ``faults.FOREIGN`` with the conversation's
``stage`` at the step that failed.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mailer.config.schema import ProviderConfig, is_loopback
from mailer.config.trust import find_trust_store
from mailer.mail.outcome import MailerError, Reply, Stage
from mailer.transport.client import Conversation
from mailer.transport.faults import FOREIGN, Fault
from mailer.transport.login import Tokens, log_in
from mailer.transport.resolve import Resolver
from mailer.transport.tls import Policy, TrustStore, client_context, policy_of


def system_trust_store() -> Path:
    """The system's certificates. Raises ConfigError."""
    return find_trust_store(os.environ)


@dataclass(frozen=True)
class Surroundings:
    """What providers take from outside: the clock (Unix time), DNS, and where the certificates to trust are."""

    clock: Callable[[], float] = time.time
    resolver: Resolver = field(default_factory=Resolver)
    trust_store: TrustStore = system_trust_store


class Peer:
    """One provider's server, as configured."""

    def __init__(self, config: ProviderConfig, hostname: str, surroundings: Surroundings, tokens: Tokens | None) -> None:
        self._config = config
        self._host = config.host.strip("[]")
        self._hostname = hostname
        self._surroundings = surroundings
        self._tokens = tokens
        self._policy = policy_of(config)
        self._contexts: list[ssl.SSLContext] = []  # the first serves; only ever appended to, or replaced whole

    def __repr__(self) -> str:
        return f"Peer({self._host}:{self._config.port}, tls={self._policy.value})"

    def conversation(self) -> Conversation:
        """A conversation not yet opened."""
        return Conversation(self._hostname, self._config.timeout)

    def open(self, conversation: Conversation, deadline: float) -> None:
        """Bring ``conversation`` to where MAIL may be said, by ``deadline`` (monotonic seconds)."""
        conversation.deadline = deadline
        try:
            self._connect(conversation)
            self._secure(conversation)
            if self._config.username:
                self._check_secrecy(conversation)
                log_in(conversation, self._config, self._tokens)
        except FOREIGN:
            conversation.close()
            raise

    def forget_trust(self) -> None:
        """Read the trust store anew for the next connection."""
        self._contexts = []

    def _connect(self, conversation: Conversation) -> None:
        conversation.stage = Stage.CONNECT
        wait = min(self._config.timeout, conversation.deadline - time.monotonic())
        conversation.dial(self._surroundings.resolver.resolve(self._host, self._config.port, wait))
        if self._policy is Policy.IMPLICIT:
            conversation.wrap(self._trust(conversation), self._host)
            conversation.stage = Stage.CONNECT
        conversation.greet()

    def _secure(self, conversation: Conversation) -> None:
        """STARTTLS where the policy asks for it."""
        if self._policy in (Policy.NONE, Policy.IMPLICIT):
            return
        if "STARTTLS" not in conversation.extensions:
            if self._policy is Policy.REQUIRED:
                conversation.stage = Stage.TLS
                raise Fault(Reply(454, "4.7.0", "TLS is required and the server does not offer STARTTLS"))
            return
        try:
            conversation.start_tls(self._trust(conversation), self._host)
        except ssl.SSLCertVerificationError:
            raise  # a certificate that fails its check is never answered with less protection
        except FOREIGN:
            if self._policy is Policy.REQUIRED or self._config.username:
                raise
            # G7: the connection is broken, whatever the server thinks of it. Without a login to protect, a new one in
            # clear text is what opportunistic means.
            conversation.close()
            self._connect(conversation)
        else:
            conversation.introduce()

    def _check_secrecy(self, conversation: Conversation) -> None:
        """The last gate before a password: whatever came before, none goes out in clear text but where that is meant."""
        if conversation.tls or is_loopback(self._host) or self._policy is Policy.NONE:
            return
        conversation.stage = Stage.TLS
        raise Fault(Reply(454, "4.7.0", "no login over clear text"))

    def _trust(self, conversation: Conversation) -> ssl.SSLContext:
        contexts = self._contexts
        if not contexts:
            conversation.stage = Stage.TLS
            try:
                store = None if self._config.insecure_skip_verify else self._surroundings.trust_store()
            except MailerError as error:
                raise Fault(Reply(454, "4.7.5", str(error))) from error
            contexts.append(client_context(store))
        return contexts[0]
