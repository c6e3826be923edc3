"""What the listener offers: the part of the configuration that a session goes by, and who its client is.

Values, but for ``Client``, which belongs to one session. A session keeps the terms it began with; a reload makes new
ones for the sessions to come.
"""

from __future__ import annotations

import itertools
import ssl
from dataclasses import dataclass, field

from mailer.config.schema import Config
from mailer.mail.outcome import Reply
from mailer.policy.access import is_loopback
from mailer.policy.auth import Credentials
from mailer.smtp.message import ContentRules
from mailer.smtp.pace import Pace

_NO_MECHANISMS: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end: its IP address, and whether it is this machine over loopback."""

    address: str
    is_loopback: bool

    @classmethod
    def at(cls, address: str) -> Peer:
        return cls(address, is_loopback(address))


@dataclass(slots=True)
class Client:
    """What a session knows of its client: ``name`` is what EHLO or HELO said, ``login`` None before a right one."""

    peer: Peer
    name: str = ""
    is_extended: bool = False
    login: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The rules for one session. ``tls`` is None without a certificate: then STARTTLS is not offered (spec 3).

    ``banner`` and ``helo_reply`` are bytes as they are sent, made once since short connections hear little else.
    """

    hostname: str
    content: ContentRules
    pace: Pace
    max_recipients: int
    max_bad_commands: int
    require_auth: bool
    credentials: Credentials
    tls: ssl.SSLContext | None = None
    banner: bytes = field(init=False, repr=False)
    helo_reply: bytes = field(init=False, repr=False)
    _ehlo_replies: dict[tuple[bool, bool], bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "banner", Reply(220, "", f"{self.hostname} ESMTP mailer").to_wire())
        object.__setattr__(self, "helo_reply", Reply(250, "", self.hostname).to_wire())
        cases = itertools.product((False, True), repeat=2)
        object.__setattr__(self, "_ehlo_replies", {case: Reply(250, "", self._extensions(*case)).to_wire() for case in cases})

    @classmethod
    def of(cls, config: Config, tls: ssl.SSLContext | None = None) -> Terms:
        return cls(
            hostname=config.hostname,
            content=ContentRules(config.max_message_size, config.max_line_length, config.bare_newlines == "reject"),
            pace=Pace(config.limits.idle_timeout, config.limits.min_data_rate),
            max_recipients=config.max_recipients,
            max_bad_commands=config.limits.bad_commands,
            require_auth=config.security.require_auth,
            credentials=Credentials.of(config),
            tls=tls,
        )

    def mechanisms(self, peer: Peer, is_tls: bool) -> tuple[str, ...]:
        """The SASL mechanisms offered now: none in clear text, but for loopback, where nobody listens in."""
        return self._mechanisms(peer.is_loopback, is_tls)

    def ehlo_reply(self, peer: Peer, is_tls: bool) -> bytes:
        """The reply to EHLO (RFC 5321 4.1.1.1), as it is sent."""
        return self._ehlo_replies[peer.is_loopback, is_tls]

    def _mechanisms(self, is_loopback: bool, is_tls: bool) -> tuple[str, ...]:
        return self.credentials.mechanisms if is_tls or is_loopback else _NO_MECHANISMS

    def _extensions(self, is_loopback: bool, is_tls: bool) -> str:
        lines = [self.hostname, "PIPELINING", f"SIZE {self.content.max_bytes}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        lines += ["CHUNKING", "DSN"]
        if is_tls:
            lines.append("REQUIRETLS")  # RFC 8689 2: under TLS alone
        elif self.tls is not None:
            lines.append("STARTTLS")
        if mechanisms := self._mechanisms(is_loopback, is_tls):
            lines.append("AUTH " + " ".join(mechanisms))
        lines.append("HELP")
        return "\n".join(lines)
