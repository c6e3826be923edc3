"""One SMTP conversation: verbs in, Replies out (RFC 5321, RFC 6409).

A ``Session`` takes a ``Wire``, so byte strings test it as well as sockets do. It runs in one thread and shares nothing
but its ``Services``. What a client does wrong is a reply; ``Disconnect`` ends the session; a fault of ours is logged,
answered 421 and ends this session alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from mailer.events import Hub, SubmissionRefused
from mailer.mail.envelope import Options, new_message_id
from mailer.mail.headers import Trace
from mailer.mail.outcome import Reply
from mailer.policy.auth import FailedLogins, delay_after
from mailer.policy.limits import RateLimiter
from mailer.smtp import replies
from mailer.smtp.authenticate import authenticate
from mailer.smtp.message import Incoming, Intake, refusal_of
from mailer.smtp.parameters import parse_mail, parse_rcpt
from mailer.smtp.replies import Disconnect, Refused
from mailer.smtp.terms import Peer, Terms
from mailer.smtp.transaction import Transaction
from mailer.smtp.wire import Wire
from mailer.spool.store import ContentWriter, SpoolError

__all__ = ["Intake", "Services", "Session"]

log = logging.getLogger(__name__)

MAX_NAME_BYTES = 255
"""Of the name given in EHLO (RFC 5321 4.5.3.1.2)."""
_OTHER_PROTOCOLS = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PATCH", b"DELETE", b"TRACE", b"PRI"))
"""A browser can be made to POST commands to a port on loopback; its first word gives it away."""
_BAD_COMMAND_CODES = frozenset((500, 501, 502, 503, 504, 535, 555))
"""What ``limits.badCommands`` counts: wrong commands, not wrong addresses, so that a long mailing may hold some."""


@dataclass(frozen=True, slots=True)
class Services:
    """What a session asks of the rest. ``clock`` is Unix seconds; ``pause`` waits so many seconds, or until the stop."""

    intake: Intake
    limiter: RateLimiter
    hub: Hub
    failed_logins: FailedLogins
    clock: Callable[[], float]
    pause: Callable[[float], object]


class Session:
    """The conversation with one client. ``run`` returns when it is over; closing the connection is the caller's."""

    def __init__(self, wire: Wire, peer: Peer, terms: Terms, services: Services) -> None:
        self._wire = wire
        self._peer = peer
        self._terms = terms
        self._services = services
        self._client_name = ""  # what EHLO or HELO said
        self._is_extended = False
        self._login: str | None = None
        self._transaction: Transaction | None = None
        self._bad_commands = 0
        self._wrong_logins = 0
        self._doubts_input = False  # DATA was refused: what comes next may be the message, sent without waiting
        self._verbs: dict[bytes, Callable[[bytes], Reply | None]] = {
            b"MAIL": self._mail,
            b"RCPT": self._rcpt,
            b"DATA": self._data,
            b"EHLO": self._ehlo,
            b"HELO": self._helo,
            b"RSET": self._rset,
            b"NOOP": lambda _: replies.OK,
            b"QUIT": self._quit,
            b"STARTTLS": self._starttls,
            b"AUTH": self._auth,
            b"VRFY": lambda _: replies.VRFY,
            b"EXPN": self._expn,
            b"HELP": lambda _: replies.HELP,
            b"BDAT": self._bdat,
        }

    def __repr__(self) -> str:
        return f"Session(client={self._peer.address}, name={self._client_name!r}, transaction={self._transaction})"

    def run(self, implicit_tls: bool = False) -> None:
        """Converse until either side ends it."""
        try:
            if implicit_tls:
                self._shake_hands()
            self._wire.say(Reply(220, "", f"{self._terms.hostname} ESMTP mailer"))
            while True:
                self._step()
        except Disconnect as end:
            self._end(end)
        except Exception:
            log.exception("smtp.fault client=%s", self._peer.address)
            self._end(Disconnect(replies.FAULT, "internal fault"))
        finally:
            self._forget_transaction()

    def _step(self) -> None:
        """One command and its reply."""
        if self._wire.is_ending:
            raise Disconnect(replies.SHUTTING_DOWN, "shutting down")
        verb = b""
        try:
            line = self._wire.read_line()
            word, _, argument = line.rstrip(b" ").partition(b" ")  # RFC 5321 4.1.1: trailing space is tolerated
            verb = word.upper()
            handler = self._verbs.get(verb)
            if handler is None:
                if verb in _OTHER_PROTOCOLS:
                    raise Disconnect(replies.NOT_SMTP, "another protocol's command")
                raise Refused(replies.UNKNOWN_COMMAND)
            reply = handler(argument)
            self._doubts_input = False
            if reply is not None:
                self._wire.say(reply)
        except Refused as refused:
            self._refuse(verb, refused)

    def _end(self, end: Disconnect) -> None:
        transaction = self._transaction
        if end.reply is not None and end.reply.enhanced in ("4.7.0", "4.3.4"):
            self._note(end.reply, end.why, b"")
        elif transaction is not None:
            log.info("smtp.aborted client=%s from=%s why=%r", self._peer.address, transaction.mail.sender or "<>", end.why)
        elif self._wire.received_bytes:
            log.debug("smtp.ended client=%s why=%r", self._peer.address, end.why)
        if end.reply is not None:
            with contextlib.suppress(Disconnect):  # nobody may be there to hear it
                self._wire.say(end.reply)
                self._wire.flush()

    # --- refusals

    def _refuse(self, verb: bytes, refused: Refused) -> None:
        self._wire.say(refused.reply)
        self._note(refused.reply, refused.why, verb)
        if verb == b"DATA" and self._wire.input_waits():
            # A client may send commands once it has read the refusal (RFC 2920 3.1). This one has not waited for it, so
            # what it sent is a message, and must never be executed (spec 3).
            raise Disconnect(replies.OUT_OF_STEP, "message sent behind a refused DATA")
        if refused.reply.code in _BAD_COMMAND_CODES:
            if self._doubts_input:
                raise Disconnect(replies.OUT_OF_STEP, "what follows a refused DATA is no command")
            self._bad_commands += 1
            if self._bad_commands >= self._terms.max_bad_commands:
                raise Disconnect(replies.TOO_MANY_ERRORS, f"{self._bad_commands} bad commands")
        self._doubts_input = self._doubts_input or verb == b"DATA"

    def _note(self, reply: Reply, why: str, verb: bytes) -> None:
        """One log line and one event for a refusal."""
        if reply is replies.OVER_RATE:
            return  # the limiter has said so
        reason = replies.reason_of(reply)
        transaction = self._transaction
        log.info(
            "smtp.refused client=%s verb=%s reason=%s code=%d status=%s from=%s why=%r",
            self._peer.address,
            verb.decode("ascii") if verb in self._verbs else "-",
            reason,
            reply.code,
            reply.enhanced or "-",
            "-" if transaction is None else transaction.mail.sender or "<>",
            why or reply.text,
        )
        self._services.hub.publish(SubmissionRefused(reason))

    # --- greeting, TLS, login

    def _ehlo(self, argument: bytes) -> Reply:
        self._greet(argument)
        self._is_extended = True
        return Reply(250, "", self._terms.greet(self._peer, self._wire.is_tls))

    def _helo(self, argument: bytes) -> Reply:
        self._greet(argument)
        self._is_extended = False
        return Reply(250, "", self._terms.hostname)

    def _greet(self, name: bytes) -> None:
        """RFC 5321 4.1.4: names are not verified; many clients give none that is a domain. Received writes safe ones only."""
        text = name.decode("ascii", "replace")
        if not name or len(name) > MAX_NAME_BYTES or not text.isascii() or not text.isprintable() or " " in text:
            raise Refused(replies.NEEDS_NAME)
        self._forget_transaction()
        self._client_name = text

    def _starttls(self, argument: bytes) -> None:
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        if self._terms.tls is None:
            raise Refused(replies.NO_TLS)
        if self._wire.is_tls:
            raise Refused(replies.TLS_ALREADY)
        self._wire.say(replies.START_TLS)
        self._shake_hands()
        self._forget_transaction()
        self._client_name = ""  # RFC 3207 4.2: what was said in clear text is forgotten
        self._login = None

    def _shake_hands(self) -> None:
        if self._terms.tls is None:
            raise Disconnect(None, "no certificate")
        try:
            self._wire.start_tls(self._terms.tls)
        except Disconnect as end:
            if end.why:
                log.info("smtp.tls_failed client=%s why=%r", self._peer.address, end.why)
            raise

    def _auth(self, argument: bytes) -> Reply:
        if not self._is_extended or not self._client_name:
            raise Refused(replies.EHLO_FIRST)
        if self._login is not None:
            raise Refused(replies.ALREADY_LOGGED_IN)
        if self._transaction is not None:
            raise Refused(replies.NOT_NOW)
        if not self._terms.credentials.mechanisms:
            raise Refused(replies.NOT_OFFERED)
        if not self._terms.mechanisms(self._peer, self._wire.is_tls):
            raise Refused(replies.NEEDS_TLS)
        try:
            self._login = authenticate(self._wire, self._terms.credentials, self._terms.hostname, argument)
        except Refused as refused:
            if refused.reply is replies.LOGIN_REFUSED:
                self._delay_guesses()
            raise
        self._wrong_logins = 0
        self._services.failed_logins.forget(self._peer.address)
        return replies.LOGGED_IN

    def _delay_guesses(self) -> None:
        """Applications on loopback share one address, so there each session answers for itself alone (spec 2)."""
        self._wrong_logins += 1
        failures = self._wrong_logins
        if not self._peer.is_loopback:
            failures = max(failures, self._services.failed_logins.count(self._peer.address, self._services.clock()))
        if delay := delay_after(failures):
            self._services.pause(delay)

    # --- a message

    def _mail(self, argument: bytes) -> Reply:
        if not self._client_name:
            raise Refused(replies.HELO_FIRST)
        if self._terms.require_auth and self._login is None:
            raise Refused(replies.LOGIN_FIRST)
        if self._transaction is not None:
            raise Refused(replies.NESTED_MAIL)
        mail = parse_mail(argument, self._is_extended)
        if mail.size > self._terms.content.max_bytes:
            raise Refused(replies.TOO_LARGE, f"announced {mail.size} bytes")
        reservation = self._services.limiter.reserve(mail.sender, self._services.clock())
        if reservation is None:
            raise Refused(replies.OVER_RATE)
        self._transaction = Transaction(mail, reservation)
        return replies.SENDER_OK

    def _rcpt(self, argument: bytes) -> Reply:
        transaction = self._transaction
        if transaction is None:
            raise Refused(replies.MAIL_FIRST)
        address = parse_rcpt(argument, transaction.mail.smtputf8, self._terms.hostname)
        if not transaction.add(address, self._terms.max_recipients):
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        return replies.RECIPIENT_OK

    def _data(self, argument: bytes) -> Reply:
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        transaction = self._transaction
        if transaction is None:
            raise Refused(replies.MAIL_FIRST)
        if not transaction.has_recipients:
            raise Refused(replies.NO_RECIPIENTS)
        message_id = new_message_id(self._services.clock())
        try:
            writer = self._services.intake.new_content(message_id)
        except SpoolError as error:
            raise refusal_of(error) from None
        try:
            return self._receive(transaction, message_id, writer)
        except Refused as refused:  # at the real end of the message, unlike those above
            self._note(refused.reply, refused.why, b"DATA")
            return refused.reply
        finally:
            self._forget_transaction()

    def _receive(self, transaction: Transaction, message_id: str, writer: ContentWriter) -> Reply:
        """Read the message and hand it over. Raises Refused after its end, Disconnect before it."""
        incoming = Incoming(self._terms.content, writer, self._trace(transaction, message_id))
        is_accepted = False
        try:
            self._wire.say(replies.START_DATA)
            for piece in self._wire.read_data():
                incoming.take(piece)
            content = incoming.finish()
            mail = transaction.mail
            options = Options(
                mail.body, mail.smtputf8, incoming.has_long_lines, client=self._peer.address, login=self._login or ""
            )
            envelope = transaction.envelope(message_id, content.size, self._services.clock(), options)
            self._services.intake.accept(envelope, content)
            is_accepted = True
        except SpoolError as error:
            raise refusal_of(error) from None
        finally:
            if not is_accepted:
                incoming.close()
        transaction.reservation.keep()
        recipients = envelope.recipients
        log.info(
            "smtp.accepted id=%s from=%s to=%s size=%d client=%s",
            message_id,
            mail.sender or "<>",
            recipients[0].address if len(recipients) == 1 else len(recipients),
            content.size,
            self._peer.address,
        )
        return Reply(250, "2.0.0", f"Ok: queued as {message_id}")

    def _trace(self, transaction: Transaction, message_id: str) -> Trace:
        return Trace(
            id=message_id,
            hostname=self._terms.hostname,
            client_name=self._client_name,
            client_address=self._peer.address,
            protocol=self._protocol(transaction.mail.smtputf8),
            recipient=transaction.only_recipient,
            at=self._services.clock(),
        )

    def _protocol(self, smtputf8: bool) -> str:
        """The WITH protocol type of RFC 3848 and RFC 6531 4.3."""
        if not self._is_extended:
            return "SMTP"
        tls = "S" if self._wire.is_tls else ""
        login = "A" if self._login is not None else ""
        return f"{'UTF8SMTP' if smtputf8 else 'ESMTP'}{tls}{login}"

    def _forget_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.reservation.release(self._services.clock())

    # --- the rest

    def _rset(self, argument: bytes) -> Reply:
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        self._forget_transaction()
        return replies.OK

    def _quit(self, argument: bytes) -> None:
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        raise Disconnect(replies.BYE, "quit")

    def _expn(self, _argument: bytes) -> None:
        raise Refused(replies.NOT_OFFERED)

    def _bdat(self, _argument: bytes) -> None:
        """Not offered, and a chunk follows without waiting for the reply (RFC 3030 2): it must not be executed."""
        self._wire.say(replies.NOT_OFFERED)
        raise Disconnect(replies.OUT_OF_STEP, "BDAT is not offered")
