"""The AUTH exchange: PLAIN (RFC 4616), LOGIN (of common use), CRAM-MD5 (RFC 2195), framed by RFC 4954.

Functions that talk over a ``Wire`` and return the login; ``Refused`` for one that is malformed, cancelled or wrong.
Nothing of a password or of a response ever leaves this module.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from mailer.mail.outcome import Reply
from mailer.policy.auth import Credentials
from mailer.smtp.replies import CANCELLED, LOGIN_REFUSED, NO_SUCH_MECHANISM, NOT_BASE64, SYNTAX, Refused
from mailer.smtp.wire import AUTH_LINE_BYTES, Wire

MAX_LOGIN_CHARS = 64
"""Of a login, for logs and envelopes; longer ones are never right unless every login is."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One AUTH command under way. ``initial`` is the initial response as it came, None without one."""

    wire: Wire
    credentials: Credentials
    hostname: str
    initial: bytes | None

    def response(self, challenge: bytes) -> bytes:
        """The client's answer to ``challenge``; its initial response is the answer to the first."""
        self.wire.say(Reply(334, "", base64.b64encode(challenge).decode("ascii")))
        return _decoded(self.wire.read_line(AUTH_LINE_BYTES))

    def first_response(self, challenge: bytes) -> bytes:
        if self.initial is None:
            return self.response(challenge)
        return b"" if self.initial == b"=" else _decoded(self.initial)  # RFC 4954 4: "=" is an empty response


def authenticate(wire: Wire, credentials: Credentials, hostname: str, argument: bytes) -> str:
    """Run the exchange that ``AUTH argument`` begins. Returns the login. Raises Refused: LOGIN_REFUSED for a wrong one."""
    mechanism, _, initial = argument.partition(b" ")
    if not mechanism or b" " in initial:
        raise Refused(SYNTAX)
    name = mechanism.decode("ascii", "replace").upper()
    if name not in credentials.mechanisms:
        raise Refused(NO_SUCH_MECHANISM)
    login, is_right = _MECHANISMS[name](Exchange(wire, credentials, hostname, initial or None))
    if not is_right:
        # What was given as the name is not shown: it is the password where a client has the two the wrong way round.
        is_known = login == credentials.username.encode()
        raise Refused(LOGIN_REFUSED, "wrong password for defaultUsername" if is_known else "the name is not defaultUsername")
    return login.decode("utf-8", "replace")[:MAX_LOGIN_CHARS]


def _plain(exchange: Exchange) -> tuple[bytes, bool]:
    words = exchange.first_response(b"").split(b"\0")
    if len(words) != 3:
        raise Refused(SYNTAX, "PLAIN needs three words")
    identity, login, password = words
    # Nobody here may act for another; naming oneself twice is fine (RFC 4616 2).
    is_right = exchange.credentials.accept(login, password) and identity in (b"", login)
    return login, is_right


def _login(exchange: Exchange) -> tuple[bytes, bool]:
    login = exchange.first_response(b"Username:")
    password = exchange.response(b"Password:")
    return login, exchange.credentials.accept(login, password)


def _cram_md5(exchange: Exchange) -> tuple[bytes, bool]:
    if exchange.initial is not None:
        raise Refused(SYNTAX, "CRAM-MD5 has no initial response")
    challenge = f"<{secrets.token_hex(16)}@{exchange.hostname}>".encode()
    login, _, digest = exchange.response(challenge).rpartition(b" ")
    return login, exchange.credentials.accept_digest(login, challenge, digest)


def _decoded(line: bytes) -> bytes:
    if line == b"*":  # RFC 4954 4
        raise Refused(CANCELLED)
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(NOT_BASE64) from None


_MECHANISMS: dict[str, Callable[[Exchange], tuple[bytes, bool]]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "CRAM-MD5": _cram_md5,
}
