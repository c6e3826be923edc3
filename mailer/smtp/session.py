"""One SMTP conversation: verbs in, Replies out (RFC 5321, RFC 6409).

A ``Session`` takes a ``Wire``, so byte strings test it as well as sockets do. It runs in one thread and shares nothing
but its ``Services``. What a client does wrong is a reply; ``Disconnect`` ends the session; a fault of ours is logged,
answered 421 and ends this session alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from mailer.events import SubmissionRefused
from mailer.mail.outcome import Reply
from mailer.policy.auth import delay_after
from mailer.smtp import replies
from mailer.smtp.authenticate import authenticate
from mailer.smtp.message import Intake
from mailer.smtp.replies import ChunkRefused, Disconnect, MessageRefused, Refused
from mailer.smtp.submission import Services, Submission
from mailer.smtp.terms import Client, Peer, Terms
from mailer.smtp.wire import Wire

__all__ = ["Intake", "Services", "Session"]

log = logging.getLogger(__name__)

MAX_NAME_BYTES = 255
"""Of the name given in EHLO (RFC 5321 4.5.3.1.2)."""
_OTHER_PROTOCOLS = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PATCH", b"DELETE", b"TRACE", b"PRI"))
"""A browser can be made to POST commands to a port on loopback; its first word gives it away."""
_BAD_COMMAND_CODES = frozenset((500, 501, 502, 503, 504, 535, 555))
"""What ``limits.badCommands`` counts: wrong commands, not wrong addresses, so that a long mailing may hold some."""

Handler = Callable[[bytes], bytes | None]
"""Takes a command's argument; returns the reply as it is sent, None when all was said. Raises Refused, Disconnect."""


class Session:
    """The conversation with one client. ``run`` returns when it is over; closing the connection is the caller's."""

    def __init__(self, wire: Wire, peer: Peer, terms: Terms, services: Services) -> None:
        self._wire = wire
        self._peer = peer
        self._terms = terms
        self._services = services
        self._client = Client(peer)
        self._submission = Submission(wire, self._client, terms, services)
        self._bad_commands = 0
        self._wrong_logins = 0
        self._doubts_input = False  # DATA was refused: what comes next may be the message, sent without waiting
        self._verbs: dict[bytes, Handler] = {
            b"MAIL": self._submission.mail,
            b"RCPT": self._submission.rcpt,
            b"DATA": self._submission.data,
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
            b"BDAT": self._submission.bdat,
        }

    def __repr__(self) -> str:
        return f"Session(client={self._peer.address}, submission={self._submission})"

    def run(self, implicit_tls: bool = False) -> None:
        """Converse until either side ends it."""
        try:
            if implicit_tls:
                self._shake_hands()
            self._wire.say_bytes(self._terms.banner)
            while True:
                self._step()
        except Disconnect as end:
            self._end(end)
        except Exception:
            log.exception("smtp.fault client=%s", self._peer.address)
            self._end(Disconnect(replies.FAULT, "internal fault"))
        finally:
            self._submission.forget()

    def _step(self) -> None:
        """One command and its reply."""
        if self._wire.is_ending:
            raise Disconnect(replies.SHUTTING_DOWN, "shutting down")
        verb = b""
        try:
            line = self._wire.read_line()
            if line[-1:] == b" ":
                line = line.rstrip(b" ")  # RFC 5321 4.1.1: trailing space is tolerated
            verb, _, argument = line.partition(b" ")
            handler = self._verbs.get(verb)
            if handler is None:
                verb = verb.upper()
                handler = self._handler(verb)
            reply = handler(argument)
            self._doubts_input = False
            if reply is not None:
                self._wire.say_bytes(reply)
        except Refused as refused:
            self._refuse(verb, refused)

    def _handler(self, verb: bytes) -> Handler:
        handler = self._verbs.get(verb)
        if handler is None:
            if verb in _OTHER_PROTOCOLS:
                raise Disconnect(replies.NOT_SMTP, "another protocol's command")
            raise Refused(replies.UNKNOWN_COMMAND)
        return handler

    def _end(self, end: Disconnect) -> None:
        if end.reply is not None and end.reply.enhanced in ("4.7.0", "4.3.4"):
            self._note(end.reply, end.why, b"")
        elif self._submission.is_under_way:
            log.info("smtp.aborted client=%s from=%s why=%r", self._peer.address, self._submission.sender, end.why)
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
        if isinstance(refused, MessageRefused):
            self._submission.forget()
            if isinstance(refused, ChunkRefused):
                self._submission.drop_chunks(refused.reply)
            return
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
        log.info(
            "smtp.refused client=%s verb=%s reason=%s code=%d status=%s from=%s why=%r",
            self._peer.address,
            verb.decode("ascii") if verb in self._verbs else "-",
            reason,
            reply.code,
            reply.enhanced or "-",
            self._submission.sender,
            why or reply.text,
        )
        self._services.hub.publish(SubmissionRefused(reason))

    # --- greeting, TLS, login

    def _ehlo(self, argument: bytes) -> bytes:
        self._greet(argument)
        self._client.is_extended = True
        return self._terms.ehlo_reply(self._peer, self._wire.is_tls)

    def _helo(self, argument: bytes) -> bytes:
        self._greet(argument)
        self._client.is_extended = False
        return self._terms.helo_reply

    def _greet(self, name: bytes) -> None:
        """RFC 5321 4.1.4: names are not verified; many clients give none that is a domain. Received writes safe ones only."""
        text = name.decode("ascii", "replace")
        if not name or len(name) > MAX_NAME_BYTES or not text.isascii() or not text.isprintable() or " " in text:
            raise Refused(replies.NEEDS_NAME)
        self._submission.forget()
        self._client.name = text

    def _starttls(self, argument: bytes) -> None:
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        if self._terms.tls is None:
            raise Refused(replies.NO_TLS)
        if self._wire.is_tls:
            raise Refused(replies.TLS_ALREADY)
        self._wire.say_bytes(replies.START_TLS)
        self._shake_hands()
        self._submission.forget()
        self._client.name = ""  # RFC 3207 4.2: what was said in clear text is forgotten
        self._client.login = None

    def _shake_hands(self) -> None:
        if self._terms.tls is None:
            raise Disconnect(None, "no certificate")
        try:
            self._wire.start_tls(self._terms.tls)
        except Disconnect as end:
            if end.why:
                log.info("smtp.tls_failed client=%s why=%r", self._peer.address, end.why)
            raise

    def _auth(self, argument: bytes) -> bytes:
        if not self._client.is_extended or not self._client.name:
            raise Refused(replies.EHLO_FIRST)
        if self._client.login is not None:
            raise Refused(replies.ALREADY_LOGGED_IN)
        if self._submission.is_under_way:
            raise Refused(replies.NOT_NOW)
        if not self._terms.credentials.mechanisms:
            raise Refused(replies.NOT_OFFERED)
        if not self._terms.mechanisms(self._peer, self._wire.is_tls):
            raise Refused(replies.NEEDS_TLS)
        try:
            self._client.login = authenticate(self._wire, self._terms.credentials, self._terms.hostname, argument)
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

    # --- the rest

    def _rset(self, argument: bytes) -> bytes:
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        self._submission.forget()
        return replies.OK

    def _quit(self, argument: bytes) -> None:
        if argument:
            raise Refused(replies.NO_PARAMETERS)
        raise Disconnect(replies.BYE, "quit")

    def _expn(self, _argument: bytes) -> None:
        raise Refused(replies.NOT_OFFERED)
