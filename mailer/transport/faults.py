"""The one place where foreign exceptions (sockets, TLS, DNS, smtplib) become Replies.

Within transport a conversation that cannot go on is an exception: one of ``FOREIGN``, ``Fault`` among them. None leaves
the package: whoever runs a conversation catches ``FOREIGN`` and asks ``reply_for``.
"""

from __future__ import annotations

import smtplib
import socket
import ssl

from mailer.mail.outcome import MailerError, Reply

FOREIGN = (OSError, smtplib.SMTPException)
"""What a conversation may raise; OSError includes time-outs, TLS and DNS errors."""


class Fault(smtplib.SMTPException):
    """The conversation cannot go on. ``reply`` is the peer's, or one of ours that says why; ``is_lost`` that the peer
    is gone, silent or beyond understanding, not that it said no."""

    def __init__(self, reply: Reply, is_lost: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.is_lost = is_lost


class ContentUnreadable(MailerError):
    """The content of the message could not be read on our side."""


def lost(text: str) -> Fault:
    """The peer ended the connection."""
    return Fault(Reply(451, "4.4.2", text), is_lost=True)


def nonsense(text: str) -> Fault:
    """The peer does not keep to SMTP, so nothing it says further can be trusted."""
    return Fault(Reply(451, "4.5.0", text), is_lost=True)


def is_lost(error: BaseException) -> bool:
    """Whether the connection broke, rather than that a server answered no. 421 means that it is closing (RFC 5321 3.8)."""
    if isinstance(error, Fault):
        return error.is_lost or error.reply.code == 421
    return True


def reply_for(error: BaseException) -> Reply:
    """What to tell of ``error``. Codes as RFC 3463: X.4.1 no answer from host, X.4.2 bad connection, X.4.3 directory
    failure, X.7.5 cryptographic failure. Ours are all 4xx: a fault without a reply is never the end of a message."""
    if isinstance(error, Fault):
        return error.reply
    if isinstance(error, ssl.SSLCertVerificationError):
        return Reply(454, "4.7.5", f"certificate cannot be verified: {_one_line(error.verify_message)}")
    if isinstance(error, ssl.SSLError):
        return Reply(454, "4.7.5", f"TLS failed: {_one_line(error.reason or str(error))}")
    if isinstance(error, socket.gaierror):
        return Reply(451, "4.4.3", f"host name cannot be resolved: {_one_line(error.strerror or str(error))}")
    if isinstance(error, TimeoutError):
        return Reply(451, "4.4.2", "time-out: no answer")
    if isinstance(error, ConnectionRefusedError):
        return Reply(451, "4.4.1", "connection refused")
    if isinstance(error, OSError):
        return Reply(451, "4.4.2", f"connection failed: {_one_line(error.strerror or str(error))}")
    return Reply(451, "4.5.0", f"conversation failed: {_one_line(str(error))}")


def _one_line(text: str) -> str:
    return Reply.received(451, text).text.replace("\n", " ")
