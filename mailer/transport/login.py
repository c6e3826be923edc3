"""Logging in to a server: SASL PLAIN, LOGIN, CRAM-MD5 and XOAUTH2 over AUTH (RFC 4954).

No threads, no locks. Raises ``Fault`` with the server's refusal, or one of ours when no mechanism fits; a secret is
never part of it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Protocol

from mailer.config.schema import ProviderConfig
from mailer.mail.outcome import Reply, Stage
from mailer.transport.client import Conversation, received
from mailer.transport.faults import Fault, nonsense

_BY_STRENGTH_IN_TLS = ("PLAIN", "LOGIN", "CRAM-MD5")  # within TLS the simplest interoperates best
_BY_STRENGTH_IN_CLEAR = ("CRAM-MD5", "PLAIN", "LOGIN")  # in clear text (loopback) the one that hides the password


class Tokens(Protocol):
    """Where access tokens come from."""

    def token(self, deadline: float) -> str:
        """A token valid now. Raises Fault. ``deadline``: monotonic seconds."""
        ...

    def replacement(self, rejected: str, deadline: float) -> str:
        """Another token than ``rejected``, which the server refused. Raises Fault."""
        ...


def log_in(conversation: Conversation, config: ProviderConfig, tokens: Tokens | None) -> None:
    """Log in as ``config`` says. Raises one of ``FOREIGN``."""
    conversation.stage = Stage.LOGIN
    offered = frozenset(conversation.esmtp_features.get("auth", "").upper().split())
    mechanism = _choose(config, offered, bool(conversation.tls))
    username, password = config.username, config.password.reveal()
    if mechanism == "XOAUTH2":
        if tokens is None:
            raise Fault(Reply(454, "4.7.0", "XOAUTH2 is configured without oauth2 settings; add them"))
        _xoauth2(conversation, username, tokens)
    elif mechanism == "PLAIN":
        _accept(*_auth(conversation, "PLAIN", f"\0{username}\0{password}"))
    elif mechanism == "LOGIN":
        _login(conversation, username, password)
    else:
        _cram_md5(conversation, username, password)


def _choose(config: ProviderConfig, offered: frozenset[str], in_tls: bool) -> str:
    if config.auth != "auto":
        wanted: tuple[str, ...] = (config.auth.upper(),)
    elif config.oauth2 is not None:
        wanted = ("XOAUTH2",)
    else:
        wanted = _BY_STRENGTH_IN_TLS if in_tls else _BY_STRENGTH_IN_CLEAR
    for mechanism in wanted:
        if mechanism in offered:
            return mechanism
    have = " ".join(sorted(offered)) or "no login"
    raise Fault(Reply(454, "4.7.0", f"server offers {have}, wanted {' or '.join(wanted)}"))


def _auth(conversation: Conversation, mechanism: str, initial: str) -> tuple[int, bytes]:
    return conversation.docmd("AUTH", f"{mechanism} {_encoded(initial)}")


def _login(conversation: Conversation, username: str, password: str) -> None:
    code, text = conversation.docmd("AUTH", "LOGIN")
    for answer in (username, password):
        if code != 334:
            break
        code, text = conversation.docmd(_encoded(answer))
    _accept(code, text)


def _cram_md5(conversation: Conversation, username: str, password: str) -> None:
    code, text = conversation.docmd("AUTH", "CRAM-MD5")
    if code == 334:
        try:
            challenge = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise nonsense("challenge of CRAM-MD5 is not base64") from None
        digest = hmac.new(password.encode(), challenge, "md5").hexdigest()  # RFC 2195 says MD5
        code, text = conversation.docmd(_encoded(f"{username} {digest}"))
    _accept(code, text)


def _xoauth2(conversation: Conversation, username: str, tokens: Tokens) -> None:
    """A refused token is replaced once: it may have been revoked, or a clock may be wrong."""
    token = tokens.token(conversation.deadline)
    code, text = _bearer(conversation, username, token)
    if code == 535:
        token = tokens.replacement(token, conversation.deadline)
        code, text = _bearer(conversation, username, token)
    _accept(code, text)


def _bearer(conversation: Conversation, username: str, token: str) -> tuple[int, bytes]:
    code, text = _auth(conversation, "XOAUTH2", f"user={username}\1auth=Bearer {token}\1\1")
    if code == 334:  # the error as JSON; an empty line asks for the 535 behind it
        code, text = conversation.docmd("")
    return code, text


def _accept(code: int, text: bytes) -> None:
    if code == 334:
        raise nonsense("server asks on after the login's last answer")
    if code != 235:
        raise Fault(received(code, text))


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
