"""Owns the sections of the configuration: every setting that stands inside an object of its own.

Immutable values with the defaults of the documentation; no threads, no locks; never fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailer.config.kinds import Choice, Flag, Integer, Network, NetworkText, PathText
from mailer.config.names import AddressText, DomainText, EhloText, FieldNameText, NameserverText, PatternText, SelectorText
from mailer.config.setting import required, section_list, setting

PORT_OR_ANY = Integer(0, 65535)
SECONDS = Integer(0, unit="s")
SOME_SECONDS = Integer(1, unit="s")
MILLISECONDS = Integer(0, unit="ms")
SOME_DAYS = Integer(1, unit="days")
SOME = Integer(1)
NO_LIMIT_AT_ZERO = Integer(0)

HEADERS_TO_SIGN = (
    "From",
    "To",
    "Subject",
    "Date",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Message-ID",
)
WEEK_SECONDS = 604800


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitsConfig:
    connections_per_address: int = setting(
        "connectionsPerAddress", 100, SOME, "Connections at a time from one address; loopback is exempt."
    )
    idle_timeout: int = setting("idleTimeout", 300, SOME_SECONDS, "A connection that is silent for so long is closed.")
    bad_commands: int = setting("badCommands", 20, SOME, "Wrong commands in one session before 421 4.7.0 ends it.")
    min_data_rate: int = setting(
        "minDataRate", 256, Integer(0, unit="bytes/s"), "Slowest sender of message content that is tolerated; 0 tolerates all."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsConfig:
    cert_file: str = setting(
        "certFile", "", PathText(), "Certificate chain (PEM). STARTTLS is offered only with one; mailer never makes its own."
    )
    key_file: str = setting("keyFile", "", PathText(), "Private key (PEM) of the certificate.")
    implicit_port: int = setting(
        "implicitPort", 0, PORT_OR_ANY, "Second listening port with TLS from the first byte (usually 465); 0 is off."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainConfig:
    """How the servers of some recipient domains are treated. What is not said here is left to the next entry that fits."""

    domain: str = setting(
        "domain", "", PatternText(), "Recipient domains it is for: `gmail.com`, `*.example.org` (all below it) or `*`.", "all"
    )
    mx: str = setting(
        "mx",
        "",
        PatternText(),
        "Mail servers it is for, by their names: `*.google.com`. All domains that they serve share `connections`.",
        "all",
    )
    connections: int | None = setting(
        "connections", None, SOME, "Most connections at once. Delivery begins with 2 and adds one for each success.", "10"
    )
    messages_per_connection: int | None = setting(
        "messagesPerConnection", None, SOME, "Messages after which a connection is closed.", "100"
    )
    recipients_per_message: int | None = setting(
        "recipientsPerMessage", None, SOME, "Most recipients in one conversation, within `batchSize`.", "100"
    )
    tls: str = setting(
        "tls",
        "",
        Choice(("opportunistic", "required", "verified", "none")),
        "`required`: never in clear text; `verified`: only to a server whose certificate proves its name.",
        "`opportunistic`",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectDeliveryConfig:
    enabled: bool = setting("enabled", False, Flag(), "Deliver to the recipients' own mail servers, before any provider.")
    ehlo_domain: str = setting("ehloDomain", "", EhloText(), "Name given in EHLO.", "`hostname`")
    insecure_skip_verify: bool = setting("insecureSkipVerify", False, Flag(), "Accept any certificate.")
    retry_count: int = setting(
        "retryCount", 3, Integer(1, unset=0), "Passes over the servers of a domain within one round; 0 or less is the default."
    )
    port: int = setting("port", 25, Integer(1, 65535), "Port of the recipients' mail servers.")
    allow_private: bool = setting(
        "allowPrivate", False, Flag(), "A mail server may resolve to a loopback or private address (tests, intranets)."
    )
    ipv4_only: bool = setting("ipv4Only", False, Flag(), "Do not use IPv6.")
    domains: tuple[DomainConfig, ...] = section_list(
        "domains",
        DomainConfig,
        "Manners towards some domains or servers. After these come those built in for Gmail, Microsoft, Yahoo and QQ.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsReportsConfig:
    enabled: bool = setting(
        "enabled",
        False,
        Flag(),
        "Once a day, tell each domain that asks for it in DNS how TLS with its servers went (RFC 8460). Off unless set, since it "
        "tells others that this machine sends them mail, and how much.",
    )
    sender: str = setting("from", "", AddressText(), "Sender of reports that go by mail.", "`tls-reports@<hostname>`")
    contact: str = setting("contact", "", AddressText(), "Whom a domain's people may ask about a report.", "`tlsReports.from`")


@dataclass(frozen=True, kw_only=True, slots=True)
class DnsConfig:
    nameservers: tuple[str, ...] = setting(
        "nameservers", (), NameserverText(), 'Servers to ask, `"ip"` or `"ip:port"`.', "the system's"
    )
    timeout: int = setting("timeout", 5, SOME_SECONDS, "Longest wait for an answer.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DkimKeyConfig:
    """A key for messages whose From domain is ``domain`` or below it; a further one of ``dkim.domain`` signs every message."""

    domain: str = required("domain", DomainText(), "Signs messages whose From domain is this one or below it.")
    selector: str = setting("selector", "mail", SelectorText(), "Selector of the DNS record with the public key.")
    private_key_path: str = setting(
        "privateKeyPath", "", PathText(), "Private key (PEM).", "`keys/<domain>/<selector>.private`"
    )
    headers_to_sign: tuple[str, ...] = setting(
        "headersToSign", HEADERS_TO_SIGN, FieldNameText(), "Header fields that are signed where they occur; From always is."
    )
    signature_expiry: int = setting("signatureExpiry", WEEK_SECONDS, SECONDS, "The signature is valid for so long; 0: for ever.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DkimConfig:
    enabled: bool = setting("enabled", False, Flag(), "Sign messages (RFC 6376) with keys from `mailer dkim generate`.")
    domain: str = setting(
        "domain", "", DomainText(), "The domain that signs every message.", "the domain of `defaultUsername`"
    )
    selector: str = setting("selector", "mail", SelectorText(), "Selector of the DNS record with the public key.")
    private_key_path: str = setting(
        "privateKeyPath", "", PathText(), "Private key (PEM).", "`keys/<domain>/<selector>.private`"
    )
    headers_to_sign: tuple[str, ...] = setting(
        "headersToSign", HEADERS_TO_SIGN, FieldNameText(), "Header fields that are signed where they occur; From always is."
    )
    signature_expiry: int = setting("signatureExpiry", WEEK_SECONDS, SECONDS, "The signature is valid for so long; 0: for ever.")
    keys: tuple[DkimKeyConfig, ...] = section_list(
        "keys",
        DkimKeyConfig,
        "Further keys, for messages whose From domain is at or under theirs. Another key of `dkim.domain`, such as an "
        "Ed25519 one beside RSA, signs every message too.",
    )
    on_error: str = setting(
        "onError", "defer", Choice(("defer", "send")), "When a message cannot be signed: keep it for later, or send it unsigned."
    )

    @property
    def all_keys(self) -> tuple[tuple[str, DkimKeyConfig], ...]:
        """Every key with its place in the configuration, that of ``domain`` first."""
        own = DkimKeyConfig(
            domain=self.domain,
            selector=self.selector,
            private_key_path=self.private_key_path,
            headers_to_sign=self.headers_to_sign,
            signature_expiry=self.signature_expiry,
        )
        further = tuple((f"dkim.keys[{position}]", key) for position, key in enumerate(self.keys))
        return (("dkim", own), *further) if self.domain else further


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryConfig:
    attempts_per_provider: int = setting(
        "attemptsPerProvider", 3, SOME, "Tries for a temporary error at one provider within one round."
    )
    base_delay: int = setting("baseDelay", 1000, MILLISECONDS, "Wait before the second try; doubled each time, 10 % jitter.")
    max_delay: int = setting("maxDelay", 60000, MILLISECONDS, "Longest wait between the tries of a round.")
    failed_retry_interval: int = setting(
        "failedRetryInterval",
        3600,
        SOME_SECONDS,
        "Longest wait between rounds: 300 s after the first, doubled each time up to this.",
    )
    max_age: int = setting(
        "maxAge", 432000, SECONDS, "A message older than this is given up at the end of a round; 0: after the first round."
    )
    max_attempts: int = setting("maxAttempts", 0, Integer(0, unit="rounds"), "Given up after so many rounds; 0 is no limit.")


@dataclass(frozen=True, kw_only=True, slots=True)
class BounceConfig:
    enabled: bool = setting(
        "enabled", True, Flag(), "Send reports to the sender: of recipients refused or given up, and what NOTIFY asks for."
    )
    delay_warning: int = setting(
        "delayWarning", 14400, SECONDS, "Tell the sender once of a message that is so late; 0 is off."
    )
    language: str = setting(
        "language", "en", Choice(("en", "zh", "both")), "Language of what a report says to people: English, Chinese, or both."
    )
    sender: str = setting("from", "", AddressText(), "Address that stands in a report's From.", "`MAILER-DAEMON@<hostname>`")
    verp: bool = setting(
        "verp",
        False,
        Flag(),
        "Name the recipient in the envelope sender (`local+recipient=domain@senderdomain`), one recipient a conversation.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimitsConfig:
    enabled: bool = setting(
        "enabled", False, Flag(), "Limit how many messages are accepted, in sliding windows; beyond: 451 4.7.1 at MAIL."
    )
    max_per_hour: int = setting("maxPerHour", 500, NO_LIMIT_AT_ZERO, "Messages of one sender within an hour; 0 is no limit.")
    max_per_day: int = setting("maxPerDay", 2000, NO_LIMIT_AT_ZERO, "Messages of one sender within a day; 0 is no limit.")
    global_max_per_hour: int = setting(
        "globalMaxPerHour", 1000, NO_LIMIT_AT_ZERO, "Messages of all senders within an hour; 0 is no limit."
    )
    global_max_per_day: int = setting(
        "globalMaxPerDay", 5000, NO_LIMIT_AT_ZERO, "Messages of all senders within a day; 0 is no limit."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SecurityConfig:
    allow_local_only: bool = setting(
        "allowLocalOnly",
        True,
        Flag(),
        "Only this machine may connect, to SMTP and HTTP. With a `smtpHost` beyond loopback it listens on 127.0.0.1 "
        "instead and warns, unless `allowedNetworks` is set.",
    )
    allowed_networks: tuple[Network, ...] = setting(
        "allowedNetworks",
        (),
        NetworkText(),
        "Networks that may connect too: a container's bridge, a LAN. Never implied. Listening beyond loopback with neither "
        "these nor a required login is an error, since it would be an open relay.",
    )
    require_auth: bool = setting(
        "requireAuth",
        True,
        Flag(),
        "Mail is accepted only after a login. On loopback without `defaultUsername` and `defaultPassword` this counts as false "
        "with a warning, and any login is accepted; beyond loopback that is an error.",
    )
    log_all_emails: bool = setting(
        "logAllEmails", True, Flag(), "Keep a copy of every accepted message in `emails/archive/YYYY-MM-DD.mbox`."
    )
    archive_days: int = setting("archiveDays", 7, SOME_DAYS, "Those copies are deleted after so long.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolConfig:
    retention_days: int = setting("retentionDays", 7, SOME_DAYS, "The status of finished messages is kept for so long.")
    dead_days: int = setting("deadDays", 30, SOME_DAYS, "Files in `emails/dead/` and `emails/quarantine/` are kept for so long.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggingConfig:
    level: str = setting("level", "info", Choice(("debug", "info", "warning", "error")), "Lines below this are not written.")
    format: str = setting("format", "text", Choice(("text", "json")), "Form of a line.")
    file: str = setting("file", "", PathText(), "File to append to.", "standard output")
    mask_addresses: bool = setting("maskAddresses", False, Flag(), "Hide the local parts of e-mail addresses in log lines.")
