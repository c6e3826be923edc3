"""MAIL, RCPT and DATA: how one client's messages come to be accepted, one after another.

No threads, no locks: a ``Submission`` belongs to one session. What the client may not do is ``Refused``; a message that
was read to its end and refused is ``MessageRefused``; room held for a message is given back unless it was accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from mailer.events import Hub
from mailer.mail.address import Address
from mailer.mail.envelope import Envelope, Options, new_message_id
from mailer.mail.headers import Trace
from mailer.policy.auth import FailedLogins
from mailer.policy.limits import RateLimiter
from mailer.smtp import replies
from mailer.smtp.message import Incoming, Intake, reply_to
from mailer.smtp.parameters import MailFrom, parse_mail, parse_rcpt
from mailer.smtp.replies import MessageRefused, Refused
from mailer.smtp.terms import Client, Terms
from mailer.smtp.transaction import Transaction
from mailer.smtp.wire import Wire
from mailer.spool.store import ContentWriter, SpoolError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What a session asks of the rest. ``clock`` is Unix seconds; ``pause`` waits so many seconds, or until the stop."""

    intake: Intake
    limiter: RateLimiter
    hub: Hub
    failed_logins: FailedLogins
    clock: Callable[[], float]
    pause: Callable[[float], object]


class Submission:
    """The mail transaction of a session (RFC 5321 3.3): at most one under way at a time."""

    def __init__(self, wire: Wire, client: Client, terms: Terms, services: Services) -> None:
        self._wire = wire
        self._client = client
        self._terms = terms
        self._services = services
        self._transaction: Transaction | None = None

    def __repr__(self) -> str:
        return f"Submission({self._transaction})"

    @property
    def is_under_way(self) -> bool:
        return self._transaction is not None

    @property
    def sender(self) -> Address | str:
        """The sender of the message under way, for the log: ``<>`` for the null sender, ``-`` for no message."""
        return "-" if self._transaction is None else self._transaction.mail.sender or "<>"

    def mail(self, argument: bytes) -> bytes:
        if not self._client.name:
            raise Refused(replies.HELO_FIRST)
        if self._terms.require_auth and self._client.login is None:
            raise Refused(replies.LOGIN_FIRST)
        if self._transaction is not None:
            raise Refused(replies.NESTED_MAIL)
        mail = parse_mail(argument, self._client.is_extended)
        if mail.size > self._terms.content.max_bytes:
            raise Refused(replies.TOO_LARGE, f"announced {mail.size} bytes")
        reservation = self._services.limiter.reserve(mail.sender, self._services.clock())
        if reservation is None:
            raise Refused(replies.OVER_RATE)
        self._transaction = Transaction(mail, reservation)
        return replies.SENDER_OK

    def rcpt(self, argument: bytes) -> bytes:
        transaction = self._transaction
        if transaction is None:
            raise Refused(replies.MAIL_FIRST)
        address = parse_rcpt(argument, transaction.mail.smtputf8, self._terms.hostname)
        if not transaction.add(address, self._terms.max_recipients):
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        return replies.RECIPIENT_OK

    def data(self, argument: bytes) -> None:
        """Replies by itself. Raises Refused before anything of the message is read, MessageRefused after its end, and
        Disconnect in between, or when the client does not take the 250."""
        transaction = self._transaction
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        if transaction is None:
            raise Refused(replies.MAIL_FIRST)
        if not transaction.has_recipients:
            raise Refused(replies.NO_RECIPIENTS)
        trace = self._trace(transaction)
        try:
            writer = self._services.intake.new_content(trace.id)
        except SpoolError as error:
            raise Refused(reply_to(error), str(error)) from None
        try:
            envelope = self._receive(transaction, trace, writer)
        except Refused as refused:
            raise MessageRefused(refused.reply, refused.why) from None
        except SpoolError as error:
            raise MessageRefused(reply_to(error), str(error)) from None
        transaction.reservation.keep()
        self._transaction = None
        try:  # first the reply: someone waits for it
            self._wire.say_bytes(b"250 2.0.0 Ok: queued as %b\r\n" % trace.id.encode())
            self._wire.flush()
        finally:
            self._log_accepted(envelope)

    def forget(self) -> None:
        """End the message under way, if there is one, and give back the room held for it."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.reservation.release(self._services.clock())

    def _receive(self, transaction: Transaction, trace: Trace, writer: ContentWriter) -> Envelope:
        """Read the message and hand it over. Raises Refused and SpoolError after its end, Disconnect before it."""
        incoming = Incoming(self._terms.content, writer, trace)
        is_accepted = False
        try:
            self._wire.say_bytes(replies.START_DATA)
            for piece in self._wire.read_data():
                incoming.take(piece)
            content = incoming.finish()
            options = self._options(transaction.mail, incoming.has_long_lines)
            envelope = transaction.envelope(trace.id, content.size, self._services.clock(), options)
            self._services.intake.accept(envelope, content)
            is_accepted = True
        finally:
            if not is_accepted:
                incoming.close()
        return envelope

    def _log_accepted(self, envelope: Envelope) -> None:
        recipients = envelope.recipients
        log.info(
            "smtp.accepted id=%s from=%s to=%s size=%d client=%s",
            envelope.id,
            envelope.sender if envelope.sender.text else "<>",
            recipients[0].address if len(recipients) == 1 else len(recipients),
            envelope.size,
            self._client.peer.address,
        )

    def _options(self, mail: MailFrom, has_long_lines: bool) -> Options:
        client = self._client
        return Options(mail.body, mail.smtputf8, has_long_lines, client=client.peer.address, login=client.login or "")

    def _trace(self, transaction: Transaction) -> Trace:
        """What Received will say of the message that begins now, with the id that it goes by from here on."""
        client, now = self._client, self._services.clock()
        protocol = self._protocol(transaction.mail.smtputf8)
        recipient = transaction.only_recipient
        return Trace(new_message_id(now), self._terms.hostname, client.name, client.peer.address, protocol, recipient, now)

    def _protocol(self, smtputf8: bool) -> str:
        """The WITH protocol type of RFC 3848 and RFC 6531 4.3."""
        if not self._client.is_extended:
            return "SMTP"
        tls = "S" if self._wire.is_tls else ""
        login = "A" if self._client.login is not None else ""
        return f"{'UTF8SMTP' if smtputf8 else 'ESMTP'}{tls}{login}"
