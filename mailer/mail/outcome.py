"""What happened to mail, as values: a ``Reply`` from a server, a ``Verdict`` per recipient; and the root of our exceptions.

No threads, no locks: everything here is immutable. What a remote server says is never an exception (docs/architecture.md,
"Errors are of two kinds"): a transport turns refused connections, broken TLS and odd replies into verdicts.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from mailer.mail.content import Render
    from mailer.mail.envelope import Envelope, Recipient

MAX_REPLY_TEXT_CHARS = 1000
"""Longest reply text kept: a hostile server may send megabytes, and every reply ends up in logs and on disk."""

_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_ENHANCED_AT_START = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |\Z)", re.ASCII)  # class.subject.detail (RFC 3463 2)


class MailerError(Exception):
    """Root of the exceptions of this program: something stops *us*; never raised for what a remote server said."""


def errno_behind(fault: BaseException) -> int | None:
    """The operating system's error number behind ``fault``, if that is where it came from."""
    seen: BaseException | None = fault
    while seen is not None:
        if isinstance(seen, OSError):
            return seen.errno
        seen = seen.__cause__ or seen.__context__  # "raise … from None" hides the cause from people, not from us
    return None


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply, in either direction (RFC 5321 4.2, RFC 2034).

    ``code`` is three digits; ``enhanced`` is ``"5.1.3"`` or empty; ``text`` may hold several lines joined by ``\\n``.
    """

    code: int
    enhanced: str
    text: str

    @classmethod
    def received(cls, code: int, text: str) -> Reply:
        """A reply that came from a remote server: bounded, without control characters, enhanced code split off."""
        text = text[:MAX_REPLY_TEXT_CHARS]
        if not text.isprintable():
            text = _UNPRINTABLE.sub(" ", text)
        text = text.strip()
        enhanced = _ENHANCED_AT_START.match(text)
        if enhanced is not None and text[0] == str(code)[:1]:
            return cls(code, enhanced[1], text[enhanced.end() :])
        return cls(code, "", text)

    @property
    def is_success(self) -> bool:
        return 200 <= self.code <= 299

    @property
    def is_transient(self) -> bool:
        return 400 <= self.code <= 499

    @property
    def is_permanent(self) -> bool:
        return 500 <= self.code <= 599

    def to_wire(self) -> bytes:
        """The reply as CRLF-terminated lines; every line repeats code and enhanced code (RFC 2034 3)."""
        prefix = f"{self.enhanced} " if self.enhanced else ""
        if "\n" not in self.text:
            return f"{self.code} {prefix}{self.text}\r\n".encode("utf-8", "replace")
        lines = self.text.split("\n")
        wire = [f"{self.code}-{prefix}{line}\r\n" for line in lines[:-1]]
        wire.append(f"{self.code} {prefix}{lines[-1]}\r\n")
        return "".join(wire).encode("utf-8", "replace")

    def __str__(self) -> str:
        code = f"{self.code} {self.enhanced}" if self.enhanced else str(self.code)
        return f"{code} {self.text}".replace("\n", " ") if self.text else code


class Stage(enum.Enum):
    """The step of a conversation that a verdict comes from; the failover rules turn on it."""

    LOCAL = "local"  # our own side: nothing was asked of the peer (no usable way, content could not be rendered)
    CONNECT = "connect"  # no connection, or no 220 greeting
    TLS = "tls"
    EHLO = "ehlo"
    LOGIN = "login"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the reply to DATA, and the reply after the final dot

    def __str__(self) -> str:
        return str(self._value_)


class Verdict(NamedTuple):
    """What one attempt meant for one recipient.

    ``reply`` is the server's, or one of ours for faults without a reply (451 4.4.1 "connection refused").
    ``in_doubt`` says that the connection ended after the final dot: the message may have been delivered.
    ``closed_for_seconds``: the delay the reply named ("try again in 300 seconds"), or None.
    ``took_dsn``: the peer offers DSN and was told what the sender asked about reports, so those are its task from here on;
    a "relayed" report is ours to send only where it was not (RFC 3461 5.2.2).
    """

    stage: Stage
    reply: Reply
    in_doubt: bool = False
    closed_for_seconds: float | None = None
    took_dsn: bool = False

    @property
    def is_delivered(self) -> bool:
        return self.stage is Stage.DATA and 200 <= self.reply.code <= 299


class Watch(Protocol):
    """Who carries a delivery out, and wants to know how far it is."""

    def dialing(self) -> None:
        """What comes next may take long and is no work: DNS, a connection, a handshake. Another worker may step in."""
        ...

    def begin(self) -> bool:
        """Mail is about to be handed over. False: not now, since outcomes cannot be recorded; nothing may be sent.

        Asked again for each further server or connection that one attempt comes to.
        """
        ...


class Unwatched:
    """For whoever delivers without a crew of workers."""

    def dialing(self) -> None:
        pass

    def begin(self) -> bool:
        return True


class Delivery(NamedTuple):
    """One batch for one way: an envelope, those of its recipients that this attempt is for, and the content.

    ``render`` makes the bytes in the form the peer can take (``mail.content.Render``); it is called once the peer's
    extensions are known. ``deadline`` (monotonic seconds) is when the conversation must be over: ``processingTimeout``.
    """

    envelope: Envelope
    recipients: Sequence[Recipient]
    render: Render
    deadline: float
    watch: Watch = Unwatched()


DIRECT_PREFIX = "direct:"
"""The way to a recipient domain's own servers is called by this and the domain (``Address.domain_key``)."""


class Transport(Protocol):
    """A way that mail can leave by: a provider, the recipients' own servers, local files."""

    @property
    def name(self) -> str:
        """The way's name in logs, metrics and records, unique among the ways of a configuration."""
        ...

    def deliver(self, delivery: Delivery) -> Mapping[int, Verdict]:
        """Try once. Returns a verdict for every recipient of the delivery, by ``Recipient.index``.

        Blocks at most until ``delivery.deadline``. Never raises for what a remote server said or did.
        """
        ...
