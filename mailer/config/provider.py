"""Owns the settings of one provider: a server that mail is forwarded to.

Immutable values; no threads, no locks. A ``ProviderConfig`` is always complete: its name and its use of TLS are worked
out from the rest where they are not given.
"""

# ruff: noqa: RUF009 - setting() and its like are dataclasses.field() with metadata, not default values

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from mailer.config.kinds import Choice, Flag, Integer, PathText, SecretText, Text
from mailer.config.names import AddressText, DomainText, HostText
from mailer.config.secret import Secret
from mailer.config.setting import optional_section, position, required, setting

PORT = Integer(1, 65535)
COUNT_OR_NO_LIMIT = Integer(0)
DEFAULT_TIMEOUT_SECONDS = 60  # RFC 5321 4.5.3.2 allows minutes, but then a dead provider holds a worker as long


@dataclass(frozen=True, kw_only=True, slots=True)
class OAuth2Config:
    """Where the access token of an XOAUTH2 login comes from."""

    token_url: str = setting(
        "tokenUrl", "", Text(), "Address (https) that issues access tokens, for a refresh token or for client credentials."
    )
    client_id: str = setting("clientId", "", Text(), "The application's id at the token's issuer.")
    client_secret: Secret = setting("clientSecret", Secret(), SecretText(), "The application's secret at the token's issuer.")
    refresh_token: Secret = setting(
        "refreshToken", Secret(), SecretText(), "Long-lived token that buys access tokens; without one, client credentials do."
    )
    token_file: str = setting(
        "tokenFile",
        "",
        PathText(),
        "File that another program keeps filled with a valid access token; with `tokenUrl`, keeps the rotated refresh token.",
    )
    scope: str = setting("scope", "", Text(), "Scope to ask for, as the token's issuer documents it.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderConfig:
    """One upstream server. 0 means "no limit" for ``max_*``; ``domains`` empty means all."""

    name: str = setting("name", "", Text(), "Name in logs, metrics and records; unique.", "`host:port`")
    host: str = required("host", HostText(), "Server to connect to.")
    port: int = required("port", PORT, "Port to connect to, usually 587, or 465 with `ssl`.")
    username: str = setting("username", "", Text(), "Login. Empty: no login.")
    password: Secret = setting("password", Secret(), SecretText(), "Password of the login.")
    ssl: bool = setting("ssl", False, Flag(), "TLS from the first byte (port 465) instead of STARTTLS.")
    priority: int = position(
        "priority",
        Integer(0),
        "Lower is tried first; equal ones go in list order. 0 everywhere keeps the list's order.",
        "its position in the list, from 0",
    )
    tls: str = setting(
        "tls",
        "",
        Choice(("opportunistic", "required", "none")),
        "`required`: no mail and no login without a verified certificate; `opportunistic`: STARTTLS where the server offers "
        "it, which counts as `required` with a login beyond loopback; `none`: never, even if the login crosses the network.",
        "`required` with `ssl`, or with a login unless the host is loopback; otherwise `opportunistic`",
    )
    insecure_skip_verify: bool = setting(
        "insecureSkipVerify", False, Flag(), "Accept any certificate. Whoever is on the path can then read mail and login."
    )
    auth: str = setting(
        "auth",
        "auto",
        Choice(("auto", "plain", "login", "cram-md5", "xoauth2")),
        "How to log in; `auto` takes the best that the server offers, XOAUTH2 where `oauth2` is given.",
    )
    oauth2: OAuth2Config | None = optional_section(
        "oauth2", OAuth2Config, "Tokens for XOAUTH2: Microsoft 365 needs them, Gmail takes them or an app password."
    )
    timeout: int = setting(
        "timeout", DEFAULT_TIMEOUT_SECONDS, Integer(1, unit="s"), "Longest wait for the connection and for each reply."
    )
    max_connections: int = setting("maxConnections", 0, COUNT_OR_NO_LIMIT, "Connections at a time; 0 is no limit of its own.")
    max_per_hour: int = setting(
        "maxPerHour",
        0,
        COUNT_OR_NO_LIMIT,
        "Recipients within an hour; a spent quota makes the next provider take over. 0 is no limit.",
    )
    max_per_day: int = setting("maxPerDay", 0, COUNT_OR_NO_LIMIT, "Recipients within a day; 0 is no limit.")
    weight: int | None = setting(
        "weight", None, Integer(1), "Share of the load among equal priorities that have one.", "none: list order"
    )
    envelope_from: str = setting(
        "envelopeFrom", "", AddressText(), "Envelope sender used here, for providers that refuse foreign ones."
    )
    header_from: str = setting(
        "headerFrom", "", AddressText(), "Address put into From here; the original goes to Reply-To."
    )
    domains: tuple[str, ...] = setting("domains", (), DomainText(), "Recipient domains it serves; empty: all.")

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.made_up_name)
        if not self.tls:
            secured = self.has_login and not is_loopback(self.host)
            object.__setattr__(self, "tls", "required" if secured or self.ssl else "opportunistic")

    @property
    def made_up_name(self) -> str:
        """The name of a provider that was given none."""
        return f"{self.host}:{self.port}"

    @property
    def has_login(self) -> bool:
        return bool(self.username)

    @property
    def verifies_tls(self) -> bool:
        """Whether this server may have to prove itself by a certificate: then there must be a store of those to trust."""
        if self.insecure_skip_verify:
            return False
        return self.ssl or self.tls == "required" or (self.tls == "opportunistic" and not is_loopback(self.host))


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only mean this machine, known without asking DNS (RFC 6761 6.3 reserves ``localhost``)."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
