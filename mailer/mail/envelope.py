"""The envelope of a message (RFC 5321 2.3.1): sender, recipients with their fate, options. Values: nobody changes one.

They are not frozen, since freezing makes one four times as dear and a message takes several; hence ``unsafe_hash``.

The envelope is the only truth about who gets a message; header fields never are.
"""

from __future__ import annotations

import enum
import functools
import os
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailer.mail.address import NULL_SENDER, Address
from mailer.mail.outcome import Reply

__all__ = ["NULL_SENDER", "Address", "Envelope", "Options", "Recipient", "State", "is_message_id", "new_message_id"]

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u; sorts as its value does
_ID_TIME_DIGITS = 9  # milliseconds in base 32: enough until the year 3084
_ID_RANDOM_DIGITS = 8
_ID_RANDOM = random.Random()  # noqa: S311 - no secret, see new_message_id
"""Begun with 2,500 bytes of the system's randomness. ``os.urandom`` for each id takes eight times as long, and lets go of
the interpreter lock, which a busy process waits to have back."""
os.register_at_fork(after_in_child=_ID_RANDOM.seed)  # else both processes would draw the same
_ID_DIGIT_OF_BYTE = (_ID_ALPHABET * 8).encode()  # for bytes.translate: each digit for eight of the 256, so all are as likely
_ID_FORM = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}", re.ASCII)


class State(enum.Enum):
    """Where a recipient, or a whole message, stands (spec 4)."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    RETRYING = "RETRYING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        return self is State.SUCCESS or self is State.FAILED


@dataclass(slots=True, unsafe_hash=True)
class Recipient:
    """One recipient of a message and what has become of it.

    ``index`` is its place in the envelope, unique within the message and stable for its life.
    ``attempts`` counts conversations in which it took part; ``provider`` and ``reply`` are the last attempt's.
    ``updated_at`` is Unix time in seconds.
    """

    index: int
    address: Address
    state: State = State.PENDING
    attempts: int = 0
    provider: str = ""
    reply: Reply | None = None
    updated_at: float = 0.0


@dataclass(slots=True, unsafe_hash=True)
class Options:
    """What the client said beyond addresses, and what the content needs of a peer.

    ``body`` is the BODY parameter of MAIL (RFC 6152): ``"7BIT"``, ``"8BITMIME"`` or empty. ``smtputf8`` as in RFC 6531.
    ``has_long_lines``: a line is over 998 bytes, so the content is re-encoded before it leaves (RFC 5321 4.5.3.1.6).
    ``is_report``: our own delivery report; reports are not counted and never cause another report.
    ``client`` and ``login`` say who submitted it: the peer's address, the user name or empty.
    ``dsn``: what was asked about delivery reports, a ``dsn.Dsn`` as text. ``require_tls``: RFC 8689.
    """

    body: str = ""
    smtputf8: bool = False
    has_long_lines: bool = False
    is_report: bool = False
    client: str = ""
    login: str = ""
    dsn: str = ""
    require_tls: bool = False


@dataclass(slots=True, unsafe_hash=True)
class Envelope:
    """A message without its content. ``size`` is the content's in bytes; ``accepted_at`` Unix time in seconds."""

    id: str
    sender: Address
    recipients: tuple[Recipient, ...]
    size: int
    accepted_at: float
    options: Options = field(default_factory=Options)

    @property
    def owed(self) -> tuple[Recipient, ...]:
        """The recipients whose fate is still open."""
        return owed_of(self.recipients)


def owed_of(recipients: Sequence[Recipient]) -> tuple[Recipient, ...]:
    """Those whose fate is still open."""
    owed = []
    for recipient in recipients:
        if recipient.state is not State.SUCCESS and recipient.state is not State.FAILED:
            owed.append(recipient)
    return tuple(owed)


def new_message_id(now: float | None = None) -> str:
    """A message id: 17 characters of ``[0-9a-z]``, in order of time, with 40 random bits so that none ever collides.

    It fits what ``emails/failed`` asks of an ID (``[A-Za-z0-9._-]{1,64}``) and is safe as a file name.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    early, late = _id_digits(milliseconds >> 15, _ID_TIME_DIGITS - 3), milliseconds & 0x7FFF
    digits = _ID_ALPHABET
    time_digits = early + digits[late >> 10] + digits[late >> 5 & 31] + digits[late & 31]
    return time_digits + _ID_RANDOM.randbytes(_ID_RANDOM_DIGITS).translate(_ID_DIGIT_OF_BYTE).decode("ascii")


@functools.lru_cache(4)
def _id_digits(value: int, count: int) -> str:
    """The last ``count`` digits of a number. Remembered: it is asked for a time, which changes every half minute."""
    return "".join(_ID_ALPHABET[value >> 5 * place & 31] for place in reversed(range(count)))


def is_message_id(text: str) -> bool:
    """Whether ``text`` may be a message's id, and so a file's name: ``[A-Za-z0-9._-]{1,64}``, not hidden (spec 4)."""
    return _ID_FORM.fullmatch(text) is not None
