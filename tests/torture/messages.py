"""Messages that say themselves what they must be: a token that no other message has, and a digest of all that follows.

The first line of a body is ``<token> <digest> <bytes>``; the digest covers every byte behind that line. Token, recipients and
subject name the same message, so a body under another's envelope or header shows as well as a body with a hole.

No threads, no locks, no state. ``read`` never raises: what cannot be read is a ``Copy`` with a fault.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

TAKEN, REFUSED, NEVER = "example.org", "refused.example.org", "never.example.org"
"""Domains of recipients: one that a provider takes, one that it refuses for good, one that it always puts off."""

LINE_BYTES = 70
DIGEST_BYTES = 16
_ID = re.compile(rb"[ \t]id ([0-9A-Za-z._-]+?);?[ \t\r\n]")
_SUBJECT = re.compile(rb"^Subject: (\S+)\r$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Message:
    """One message to submit. ``body_bytes``: how long its body is to be, about."""

    token: str
    sender: str
    domains: tuple[str, ...]
    body_bytes: int

    @property
    def recipients(self) -> list[str]:
        return [f"{self.token}.{number}@{domain}" for number, domain in enumerate(self.domains)]

    def content(self) -> bytes:
        """Header and body as they are, lines ending in CRLF; not dot-stuffed."""
        head = f"From: <{self.sender}>\r\nTo: <{self.recipients[0]}>\r\nSubject: {self.token}\r\n\r\n".encode()
        body = _filler(self.token, self.body_bytes)
        return b"%s%s %s %d\r\n%s" % (head, self.token.encode(), _digest(body), len(body), body)


@dataclass(frozen=True, slots=True)
class Copy:
    """A message as it arrived. ``fault``: how it differs from what was sent under its token; empty when it does not."""

    token: str
    id: str
    recipients: tuple[str, ...]
    fault: str = ""


def on_the_wire(content: bytes) -> bytes:
    """Dot-stuffed and ended (RFC 5321 4.5.2). ``content`` ends with CRLF."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"


def read(content: bytes, sender: str, recipients: tuple[str, ...]) -> Copy:
    """What arrived under this envelope; ``content`` as ``Message.content`` with what a relay adds to the header."""
    head, separator, body = content.partition(b"\r\n\r\n")
    first, _, rest = body.partition(b"\r\n")
    words = first.split(b" ")
    id_, subject = _ID.search(head), _SUBJECT.search(head + b"\r\n")
    name = id_[1].decode() if id_ else ""
    if not separator or len(words) != 3:
        return Copy("", name, recipients, f"no message of ours: {content[:80]!r}")
    token = words[0].decode("ascii", "replace")
    return Copy(token, name, recipients, _fault(token, words, rest, sender, recipients, subject[1] if subject else b""))


def sender_of(token: str) -> str:
    """The sender that belongs to a token: its session."""
    return f"{token.partition('-')[0]}@example.com"


def _fault(token: str, words: list[bytes], rest: bytes, sender: str, recipients: tuple[str, ...], subject: bytes) -> str:
    if words[2] != str(len(rest)).encode():
        return f"{len(rest)} bytes instead of {words[2].decode('ascii', 'replace')}"
    if words[1] != _digest(rest):
        return "other bytes than were sent"
    if subject != token.encode():
        return f"the header of {subject.decode('ascii', 'replace')}"
    if sender != sender_of(token):
        return f"the sender {sender}"
    strangers = [address for address in recipients if address.partition(".")[0] != token]
    return f"recipients of another message: {', '.join(strangers)}" if strangers else ""


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest().encode()


def _filler(token: str, size_bytes: int) -> bytes:
    """Lines of this message alone; every eighth begins with a dot, which every hop must double and undo."""
    lines = []
    seed = token
    for number in range(8):
        text = f"{'.' if number == 3 else ''}{seed}/{number} "
        lines.append((text * (1 + LINE_BYTES // len(text)))[: LINE_BYTES - 2] + "\r\n")
    block = "".join(lines).encode()
    count = max(1, size_bytes // LINE_BYTES)
    return (block * (count // len(lines) + 1))[: count * LINE_BYTES]
