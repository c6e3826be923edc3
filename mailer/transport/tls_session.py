"""Bringing about the TLS that a policy asks of one host, on one connection: STARTTLS, the checks, EHLO again.

No threads, no locks: a ``HostPolicy`` serves one delivery. ``secure`` fails by raising one of ``faults.FOREIGN`` with the
conversation's ``stage`` at TLS, and never leaves less protection than the policy allows.
"""

from __future__ import annotations

import enum
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mailer.mail.outcome import Reply, Stage
from mailer.transport import tlsa
from mailer.transport.client import Conversation
from mailer.transport.faults import FOREIGN, Fault, is_lost, reply_for
from mailer.transport.tlsrpt import Detail, PolicyName, Result, Tally
from mailer.transport.trust import Trust

log = logging.getLogger(__name__)

_X509_EXPIRED = 10  # OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED
_X509_WRONG_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


class Level(enum.IntEnum):
    """What a connection must have; the higher, the more."""

    CLEAR = 0  # no TLS even where it is offered
    OPPORTUNISTIC = 1  # TLS where it is to be had, with any certificate (RFC 7435)
    ENCRYPTED = 2  # TLS, with any certificate
    VERIFIED = 3  # a certificate of a known authority for the host's name
    DANE = 4  # a certificate that the host's TLSA records name (RFC 7672)


@dataclass(frozen=True)
class HostPolicy:
    """``level`` is what is tried, ``least`` what it may fall back to: less where MTA-STS only tests.

    ``name``: the policy that results are counted under.
    ``records``: usable TLSA records; ``names``: what a certificate below a trust anchor may be for. ``why``: who asks for it.
    """

    host: str
    level: Level
    least: Level
    trust: Trust
    tally: Tally | None
    name: PolicyName
    records: Sequence[tlsa.Record] = ()
    names: tuple[str, ...] = ()
    why: str = ""

    def secure(self, conversation: Conversation, reconnect: Callable[[], None]) -> None:
        """STARTTLS as the policy asks, and EHLO again. ``reconnect`` dials and greets anew."""
        if self.level is Level.CLEAR:
            return
        ends = _ends(conversation)
        try:
            self._start(conversation)
        except FOREIGN as error:
            self._count_failure(error, ends)
            is_only_tested = self.least < self.level and not isinstance(error, _NotOffered)
            if self.least > Level.OPPORTUNISTIC and not is_only_tested:
                raise self._explained(error) from error
            is_offered = not isinstance(error, _NotOffered)
            if is_offered or self.level > Level.OPPORTUNISTIC:  # else it says no more than tls=none of the attempt's line
                log.info("tls.fallback host=%s policy=%s reply=%r", self.host, self.name.kind, str(reply_for(error)))
            if not is_offered:
                return
            # RFC 3207 4.1 leaves the connection in doubt, so the next try has one of its own.
            conversation.close()
            reconnect()
            if is_only_tested:
                replace(self, level=self.least, tally=None).secure(conversation, reconnect)
            return
        if self.tally is not None:
            self.tally.success(self.name)
        conversation.introduce()

    def with_records(self, records: Sequence[tlsa.Record], names: tuple[str, ...]) -> HostPolicy:
        """The same with TLSA records; at level DANE they decide."""
        return replace(self, records=records, names=names)

    def _start(self, conversation: Conversation) -> None:
        """TLS, and the checks. Raises one of FOREIGN."""
        conversation.stage = Stage.TLS
        if "STARTTLS" not in conversation.extensions:
            raise _NotOffered(Reply(454, "4.7.0", "the server does not offer STARTTLS"))
        conversation.start_tls(self.trust.context(self.level is Level.VERIFIED), self.host)
        chain = tlsa.presented_chain(conversation.sock) if isinstance(conversation.sock, ssl.SSLSocket) else []
        if self.level is Level.DANE:
            how = self._check_dane(conversation, chain)
        else:
            how = "verified" if conversation.is_verified or self.trust.vouches(chain, self.host) else "unverified"
        conversation.tls = f"{conversation.tls}/{how}"

    def _check_dane(self, conversation: Conversation, chain: Sequence[bytes]) -> str:
        fit = tlsa.fit(self.records, chain, self.names)
        if not fit.is_good:
            raise Fault(Reply(454, "4.7.5", fit.why))
        conversation.is_verified = True
        return "dane-ee" if fit.usage == tlsa.DANE_EE else "dane-ta"

    def _explained(self, error: BaseException) -> Fault:
        """The same fault, with who asks for TLS in front."""
        reply = reply_for(error)
        return Fault(replace(reply, text=f"{self.why}: {reply.text}") if self.why else reply, is_lost(error))

    def _count_failure(self, error: BaseException, ends: tuple[str, str]) -> None:
        if self.tally is not None:
            reason = reply_for(error).text
            self.tally.failure(self.name, Detail(result_of(error), self.host, ends[0], ends[1], reason))


class _NotOffered(Fault):
    """The connection is as good as before: nothing was tried."""


def result_of(error: BaseException) -> Result:
    """What a report calls it (RFC 8460 4.3)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _X509_EXPIRED:
            return Result.EXPIRED
        return Result.HOST_MISMATCH if error.verify_code in _X509_WRONG_NAME else Result.NOT_TRUSTED
    if isinstance(error, _NotOffered):
        return Result.STARTTLS_NOT_SUPPORTED
    if isinstance(error, Fault) and error.reply.enhanced == "4.7.5":
        return Result.NOT_TRUSTED
    return Result.VALIDATION_FAILURE


def _ends(conversation: Conversation) -> tuple[str, str]:
    """The server's address and ours; empty once the connection is gone."""
    try:
        if conversation.sock is not None:
            return conversation.sock.getpeername()[0], conversation.sock.getsockname()[0]
    except OSError:
        pass
    return "", ""
