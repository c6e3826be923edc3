"""Owns every setting of the program as a tree of frozen values: name, type, default, unit and help text in one place.

No threads, no locks. The tree can be built in code with keyword arguments and always holds values in effect: what
depends on something else is worked out here (``hostname``, ``require_auth``) or by ``load`` (all that needs a warning).
"""

# ruff: noqa: RUF009 - setting() and its like are dataclasses.field() with metadata, not default values

from __future__ import annotations

import dataclasses
import socket
from dataclasses import dataclass
from pathlib import Path

from mailer.config.kinds import Choice, Flag, FolderPath, Integer, Network, SecretText, Text
from mailer.config.names import EhloText, HostText
from mailer.config.provider import OAuth2Config, ProviderConfig, is_loopback
from mailer.config.secret import Secret
from mailer.config.sections import (
    MILLISECONDS,
    PORT_OR_ANY,
    SOME,
    SOME_SECONDS,
    BounceConfig,
    DirectDeliveryConfig,
    DkimConfig,
    DkimKeyConfig,
    DnsConfig,
    DomainConfig,
    LimitsConfig,
    LoggingConfig,
    RateLimitsConfig,
    RetryConfig,
    SecurityConfig,
    SpoolConfig,
    TlsConfig,
    TlsReportsConfig,
)
from mailer.config.setting import section, section_list, setting
from mailer.mail.address import is_domain

__all__ = [
    "BounceConfig",
    "Config",
    "DirectDeliveryConfig",
    "DkimConfig",
    "DkimKeyConfig",
    "DnsConfig",
    "DomainConfig",
    "LimitsConfig",
    "LoggingConfig",
    "Network",
    "OAuth2Config",
    "ProviderConfig",
    "RateLimitsConfig",
    "RetryConfig",
    "Secret",
    "SecurityConfig",
    "SpoolConfig",
    "TlsConfig",
    "TlsReportsConfig",
    "is_loopback",
    "own_hostname",
]

SAFE_HOSTNAME = "localhost"
MIN_LINE_BYTES = 1000  # RFC 5321 4.5.3.1.6: a server must take lines of 1000 octets
SOME_BYTES = Integer(1, unit="bytes")


def own_hostname(name: str | None = None) -> str:
    """The host's name as EHLO may give it (RFC 5321 4.1.1.1), found without asking DNS; ``localhost`` if it is none."""
    found = socket.gethostname() if name is None else name
    return found if found and is_domain(found) else SAFE_HOSTNAME


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration, in effect. Attributes are the JSON keys in snake case."""

    smtp_host: str = setting("smtpHost", "127.0.0.1", HostText(), "Address to listen on for SMTP.")
    smtp_port: int = setting("smtpPort", 25, PORT_OR_ANY, "Port to listen on for SMTP; 0 picks one and logs it.")
    hostname: str = setting(
        "hostname",
        "",
        EhloText(),
        "This server's name: in the greeting, in EHLO to providers, in Received and in Message-ID.",
        "the host's name, found without asking DNS",
    )
    default_username: str = setting("defaultUsername", "", Text(), "The login that applications use here.")
    default_password: Secret = setting("defaultPassword", Secret(), SecretText(), "The password of that login.")
    max_message_size: int = setting("maxMessageSize", 26214400, SOME_BYTES, "Largest message accepted; announced as SIZE.")
    max_recipients: int = setting("maxRecipients", 1000, SOME, "Most recipients of one message.")
    max_connections: int = setting("maxConnections", 1000, SOME, "Connections at a time; more get 421 4.7.0.")
    max_line_length: int = setting(
        "maxLineLength", 1048576, Integer(MIN_LINE_BYTES, unit="bytes"), "Longest line inside a message."
    )
    bare_newlines: str = setting(
        "bareNewlines",
        "normalize",
        Choice(("normalize", "reject")),
        "A bare CR or LF inside a message: `normalize` makes it CRLF, `reject` answers 550 5.6.0 after the real end. "
        "Neither ever ends a message.",
    )
    limits: LimitsConfig = section("limits", LimitsConfig, "Limits of single connections.")
    tls: TlsConfig = section("tls", TlsConfig, "The listener's certificate.")
    forward_smtp: bool = setting(
        "forwardSMTP",
        False,
        Flag(),
        "Master switch of forwarding through providers. True with neither `forwardProviders` nor `forwardHost` counts as "
        "false, with a warning. Without any way out, mail is kept in `emails/*.eml`.",
    )
    forward_providers: tuple[ProviderConfig, ...] = section_list(
        "forwardProviders", ProviderConfig, "Upstream servers in order of preference; wins over the `forwardHost` keys."
    )
    forward_host: str = setting("forwardHost", "", HostText(), "Deprecated: host of a single provider.")
    forward_port: int = setting("forwardPort", 587, Integer(1, 65535, unset=0), "Deprecated: its port.")
    forward_username: str = setting("forwardUsername", "", Text(), "Deprecated: its login.")
    forward_password: Secret = setting("forwardPassword", Secret(), SecretText(), "Deprecated: its password.")
    forward_ssl: bool = setting("forwardSSL", False, Flag(), "Deprecated: TLS from the first byte instead of STARTTLS.")
    direct_delivery: DirectDeliveryConfig = section(
        "directDelivery", DirectDeliveryConfig, "Delivery to the recipients' own mail servers."
    )
    tls_reports: TlsReportsConfig = section("tlsReports", TlsReportsConfig, "Reports to other domains about TLS.")
    dns: DnsConfig = section("dns", DnsConfig, "Name resolution of direct delivery.")
    dkim: DkimConfig = section("dkim", DkimConfig, "Signatures.")
    processes: int = setting(
        "processes",
        0,
        Integer(0, 2),
        "2: the SMTP sessions run in a process of their own, which uses a second processor: half as many messages a second "
        "more under load, for some 10 MiB of memory. 1: one process does all. 0: 2 where there is more than one processor. "
        "A change needs a restart.",
    )
    worker_count: int = setting("workerCount", 5, SOME, "Delivery threads.")
    queue_size: int = setting("queueSize", 1000, SOME, "Messages held in memory for delivery; the rest wait on disk.")
    processing_timeout: int = setting(
        "processingTimeout", 300, SOME_SECONDS, "Longest conversation with a provider for one batch of recipients."
    )
    batch_size: int = setting(
        "batchSize", 20, Integer(1, unset=0), "Recipients of one message that go out together; 0 or less is the default."
    )
    batch_delay: int = setting("batchDelay", 1000, MILLISECONDS, "Wait between the batches of one message.")
    continue_on_error: bool = setting(
        "continueOnError", True, Flag(), "False: after a refused recipient the batches that have not begun are FAILED."
    )
    retry: RetryConfig = section("retry", RetryConfig, "When a message is tried again, and when it is given up.")
    bounce: BounceConfig = section("bounce", BounceConfig, "Reports to the sender.")
    enable_health_check: bool = setting("enableHealthCheck", True, Flag(), "Serve health, metrics and admin calls over HTTP.")
    health_check_host: str = setting("healthCheckHost", "127.0.0.1", HostText(), "Address to listen on for HTTP.")
    health_check_port: int = setting("healthCheckPort", 8025, PORT_OR_ANY, "Port to listen on for HTTP; 0 picks one and logs it.")
    health_check_allowed_hosts: tuple[str, ...] = setting(
        "healthCheckAllowedHosts",
        (),
        HostText(),
        "Further names by which HTTP may be addressed (Host header), beside IP addresses, `localhost` and `hostname`.",
    )
    rate_limits: RateLimitsConfig = section("rateLimits", RateLimitsConfig, "How many messages are accepted.")
    security: SecurityConfig = section("security", SecurityConfig, "Who may send.")
    data_dir: Path = setting(
        "dataDir", Path(), FolderPath(), "Where `emails/` and `spool/` live, and where relative paths start.", '`"."`'
    )
    spool: SpoolConfig = section("spool", SpoolConfig, "How long things are kept.")
    logging: LoggingConfig = section("logging", LoggingConfig, "What is logged, how and where.")

    def __post_init__(self) -> None:
        if not self.hostname:
            object.__setattr__(self, "hostname", own_hostname())
        if self.accept_any_login and self.security.require_auth:
            object.__setattr__(self, "security", dataclasses.replace(self.security, require_auth=False))

    @property
    def has_credentials(self) -> bool:
        """Whether the listener has a login: a name and a password."""
        return bool(self.default_username and self.default_password)

    @property
    def listens_on_loopback_only(self) -> bool:
        return is_loopback(self.smtp_host)

    @property
    def accept_any_login(self) -> bool:
        """Loopback only and no credentials: AUTH is offered and accepts any login, as the Go program does."""
        return self.listens_on_loopback_only and not self.has_credentials
