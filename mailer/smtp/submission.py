"""MAIL, RCPT, DATA and BDAT: how one client's messages come to be accepted, one after another.

No threads, no locks: a ``Submission`` belongs to one session. What the client may not do is ``Refused``; a message that
was read to its end and refused is ``MessageRefused``; room held for a message is given back unless it was accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from mailer.events import Hub
from mailer.mail.address import Address
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope, Options, new_message_id
from mailer.mail.headers import Trace
from mailer.mail.outcome import Reply
from mailer.policy.auth import FailedLogins
from mailer.policy.limits import RateLimiter
from mailer.smtp import replies
from mailer.smtp.chunks import Chunks
from mailer.smtp.message import Incoming, Intake, reply_to
from mailer.smtp.parameters import parse_chunk, parse_mail, parse_rcpt
from mailer.smtp.replies import ChunkRefused, Disconnect, MessageRefused, Refused
from mailer.smtp.terms import Client, Terms
from mailer.smtp.transaction import Transaction
from mailer.smtp.wire import Wire
from mailer.spool.store import SpoolError

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
        self._refused_chunk: Reply | None = None  # what the chunks behind a refused one are answered
        self._dropped_bytes = 0  # of chunks refused since MAIL

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
        if mail.require_tls and not self._wire.is_tls:
            raise Refused(replies.UNKNOWN_PARAMETER, "REQUIRETLS needs TLS")  # RFC 8689 2: offered under TLS alone
        if mail.size > self._terms.content.max_bytes:
            raise Refused(replies.TOO_LARGE, f"announced {mail.size} bytes")
        reservation = self._services.limiter.reserve(mail.sender, self._services.clock())
        if reservation is None:
            raise Refused(replies.OVER_RATE)
        self._transaction = Transaction(mail, reservation)
        self._refused_chunk, self._dropped_bytes = None, 0
        return replies.SENDER_OK

    def rcpt(self, argument: bytes) -> bytes:
        transaction = self._transaction
        if transaction is None:
            raise Refused(replies.MAIL_FIRST)
        if transaction.chunks is not None:
            raise Refused(replies.AMID_CHUNKS)
        address, wish = parse_rcpt(argument, transaction.mail.smtputf8, self._terms.hostname, self._client.is_extended)
        if not transaction.add(address, wish, self._terms.max_recipients):
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        return replies.RECIPIENT_OK

    def data(self, argument: bytes) -> None:
        """Replies by itself. Raises Refused before anything of the message is read, MessageRefused after its end, and
        Disconnect in between, or when the client does not take the 250."""
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        transaction = self._complete()
        if transaction.chunks is not None:
            raise Refused(replies.AMID_CHUNKS)  # RFC 3030 2: DATA and BDAT never mix
        incoming = self._begin(transaction)
        try:
            self._wire.say_bytes(replies.START_DATA)
            for piece in self._wire.read_data():
                incoming.take(piece)
            self._conclude(transaction, incoming, incoming.finish)
        finally:
            if self._transaction is not None:  # it was not accepted
                incoming.close()

    def bdat(self, argument: bytes) -> bytes | None:
        """One chunk (RFC 3030 2). Its octets are read whatever becomes of it, and so never taken for commands; after a
        command that does not say how many follow, the session ends. Raises as ``data`` does, and ChunkRefused."""
        chunk = parse_chunk(argument)
        if chunk is None:
            self._wire.say(replies.BDAT_SYNTAX)
            raise Disconnect(replies.OUT_OF_STEP, "BDAT does not say how many octets follow")
        size, is_last = chunk
        if self._refused_chunk is not None:
            self._drop(size)
            reply, self._refused_chunk = self._refused_chunk, None if is_last else self._refused_chunk
            return reply.to_wire()
        try:
            if is_last is None:
                raise Refused(replies.BDAT_SYNTAX)
            transaction = self._complete()
            is_first = transaction.chunks is None
            chunks = transaction.chunks = transaction.chunks or Chunks(self._begin(transaction))
        except Refused as refused:
            self._drop(size)
            if self._transaction is None:
                raise
            raise _of_chunk(is_last)(refused.reply, refused.why) from None
        chunks.take(self._wire.read_chunk(size, is_first))
        if chunks.fault is not None:
            raise _of_chunk(is_last)(chunks.fault.reply, chunks.fault.why)
        if not is_last:
            return b"250 2.0.0 %d octets received\r\n" % size
        self._conclude(transaction, chunks.incoming, chunks.finish)
        return None

    def forget(self) -> None:
        """End the message under way, if there is one, and give back the room held for it."""
        transaction, self._transaction = self._transaction, None
        self._refused_chunk = None
        if transaction is not None:
            if transaction.chunks is not None:
                transaction.chunks.close()
            transaction.reservation.release(self._services.clock())

    def drop_chunks(self, reply: Reply) -> None:
        """Read chunks that are on their way, and answer each with ``reply``, until the last of them or another command that
        begins anew (RFC 3030 2)."""
        self._refused_chunk = reply

    def _drop(self, size: int) -> None:
        self._dropped_bytes += size
        if self._dropped_bytes > self._terms.content.endless_bytes:
            raise Disconnect(replies.ENDLESS, f"{self._dropped_bytes} bytes in refused chunks")
        for _ in self._wire.read_chunk(size, is_first=True):
            pass

    def _complete(self) -> Transaction:
        """The message under way, once its content may come. Raises Refused."""
        transaction = self._transaction
        if transaction is None:
            raise Refused(replies.MAIL_FIRST)
        if not transaction.has_recipients:
            raise Refused(replies.NO_RECIPIENTS)
        return transaction

    def _begin(self, transaction: Transaction) -> Incoming:
        """Take up the content. Raises Refused."""
        trace = self._trace(transaction)
        try:
            return Incoming(self._terms.content, self._services.intake.new_content(trace.id), trace)
        except SpoolError as error:
            raise Refused(reply_to(error), str(error)) from None

    def _conclude(self, transaction: Transaction, incoming: Incoming, finish: Callable[[], Content]) -> None:
        """The whole message was read: make it durable and say so; from then on no message is under way. Raises
        MessageRefused, and Disconnect when the client does not take the 250."""
        try:
            content = finish()
            options = self._options(transaction, incoming.has_long_lines)
            envelope = transaction.envelope(incoming.trace.id, content.size, self._services.clock(), options)
            self._services.intake.accept(envelope, content)
        except Refused as refused:
            raise MessageRefused(refused.reply, refused.why) from None
        except SpoolError as error:
            raise MessageRefused(reply_to(error), str(error)) from None
        self._transaction = None
        transaction.reservation.keep()
        try:  # first the reply: someone waits for it
            self._wire.say_bytes(b"250 2.0.0 Ok: queued as %b\r\n" % envelope.id.encode())
            self._wire.flush()
        finally:
            self._log_accepted(envelope)

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

    def _options(self, transaction: Transaction, has_long_lines: bool) -> Options:
        client, mail = self._client, transaction.mail
        return Options(
            mail.body, mail.smtputf8, has_long_lines, False, client.peer.address, client.login or "",
            transaction.dsn, mail.require_tls,
        )  # fmt: skip

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


def _of_chunk(is_last: bool | None) -> type[MessageRefused]:
    """How a chunk is refused: behind the last of a message there are no more of it."""
    return MessageRefused if is_last else ChunkRefused
