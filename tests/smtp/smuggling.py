"""SMTP smuggling: what attackers put inside a message so that one of two servers takes it for the message's end.

Each payload is a message (what a client sends behind 354, up to and with the one real end) that holds a second message
behind something that is no end: whoever takes it for one executes ``INNER``. Used against the listener alone and
through the whole process, with strict and lenient upstreams.
"""

from __future__ import annotations

OUTER_HEAD = (
    b"From: outer@example.com\r\nTo: victim@example.org\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    b"Message-ID: <1@example.com>\r\nSubject: outer\r\n\r\nouter body"
)
INNER_SENDER = "smuggled@example.com"
INNER = b"MAIL FROM:<smuggled@example.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\ninner body"

FALSE_ENDINGS: dict[str, bytes] = {
    "LF . LF": b"\n.\n",
    "LF . CRLF": b"\n.\r\n",
    "LF . CR": b"\n.\r",
    "CR . CR": b"\r.\r",
    "CR . LF": b"\r.\n",
    "CR . CRLF": b"\r.\r\n",
    "CRLF . LF": b"\r\n.\n",
    "CRLF . CR": b"\r\n.\r",
    "CRLF . CR CRLF": b"\r\n.\r\r\n",
    "LF . CR CRLF": b"\n.\r\r\n",
    "CR LF LF . LF": b"\r\n\n.\n",
    "CRLF NUL . CRLF": b"\r\n\0.\r\n",
    "CRLF . NUL CRLF": b"\r\n.\0\r\n",
    "CR NUL LF . CRLF": b"\r\0\n.\r\n",
    "CRLF . space CRLF": b"\r\n. \r\n",
    "CRLF .. CRLF": b"\r\n..\r\n",
}
"""By name: byte strings that look like the end of a message and are none (RFC 5321 4.1.1.4)."""

REAL_END = b"\r\n.\r\n"


def payload(ending: bytes) -> bytes:
    """A message with ``INNER`` behind a false ending, up to and with its real end."""
    return OUTER_HEAD + ending + INNER + REAL_END


def content_of(ending: bytes) -> bytes:
    """The content that the listener must make of ``payload(ending)``: dots unstuffed behind CRLF, then CRLF alone."""
    raw = OUTER_HEAD + ending + INNER + b"\r\n"
    raw = raw.replace(b"\r\n.", b"\r\n")
    return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def has_nul(ending: bytes) -> bool:
    return b"\0" in ending


def has_bare_newline(ending: bytes) -> bool:
    rest = ending.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest
