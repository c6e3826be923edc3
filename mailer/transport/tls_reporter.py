"""Sends the daily reports about TLS (RFC 8460): who wants one is asked in DNS, when the UTC day is over.

``step`` belongs to one service thread, which alone touches what stands here; the counts have a lock of their own (tlsrpt.py).
A report that cannot be handed in is tried again each hour until its counts are too old. Nothing here raises.
"""

from __future__ import annotations

import logging
import random
import urllib.parse
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mailer.config.schema import Config
from mailer.dns.lookup import Answer, Status
from mailer.mail.address import Address, AddressError, is_domain
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.mail.outcome import MailerError
from mailer.transport.https import PORT, Https
from mailer.transport.tls_report import MEDIA_TYPE, Reporting, TlsReport, as_mail, make
from mailer.transport.tlsrpt import Day, Tally, day_of

log = logging.getLogger(__name__)

EARLIEST_SECONDS, LATEST_SECONDS = 600.0, 14400.0
"""After the end of the day: RFC 8460 4.1 asks senders not to report all at midnight; up to four hours are proposed."""
PAUSE_SECONDS = 2.0  # between two reports: nobody waits for them, and mail shall not
LOOK_SECONDS = 300.0
RETRY_SECONDS = 3600.0
MAX_ADDRESSES = 5  # of one domain's record; more is an attempt to make us send

Submit = Callable[[Envelope, Content], None]
"""Takes a message into the spool; raises MailerError."""


class Wanted(NamedTuple):
    """Where a domain wants its reports: addresses, and URLs as host and path."""

    mail: tuple[Address, ...] = ()
    web: tuple[tuple[str, str], ...] = ()


class TlsReporter:
    """``submit`` is set by whoever owns the spool; until then no report goes by mail."""

    def __init__(self, tally: Tally, txt: Callable[[str], Answer[str]], https: Https, draw: random.Random) -> None:
        self._tally = tally
        self._txt = txt
        self._https = https
        self._delay_seconds = draw.uniform(EARLIEST_SECONDS, LATEST_SECONDS)
        self._retry_at: dict[tuple[Day, str], float] = {}
        self._config: Config | None = None
        self.submit: Submit | None = None

    def __repr__(self) -> str:
        return f"TlsReporter(delay={self._delay_seconds:.0f}, retries={len(self._retry_at)})"

    def configure(self, config: Config) -> None:
        """Take on a configuration."""
        self._config = config
        self._tally.is_counting = config.direct_delivery.enabled and config.tls_reports.enabled

    def step(self, now: float) -> float:
        """Send one report that is due. Returns seconds until the next look."""
        config = self._config
        if config is None or not self._tally.is_counting:
            return LOOK_SECONDS
        pending = self._tally.domains_before(day_of(now - self._delay_seconds))
        self._retry_at = {key: at for key, at in self._retry_at.items() if key in pending}
        # A clock set back makes a wait look longer than any is.
        due = [key for key in pending if not 0 < self._retry_at.get(key, 0.0) - now <= RETRY_SECONDS]
        if not due:
            return LOOK_SECONDS
        if self._report(*due[0], config, now):
            self._tally.forget(*due[0])
        else:
            self._retry_at[due[0]] = now + RETRY_SECONDS
        return PAUSE_SECONDS if len(due) > 1 else LOOK_SECONDS

    def _report(self, day: Day, domain: str, config: Config, now: float) -> bool:
        """Whether it is done with: handed in somewhere, or nobody wants it."""
        answer = self._txt(f"_smtp._tls.{domain}")
        if answer.status is Status.FAILED:
            return False
        wanted = wanted_by(answer.records)
        if wanted == Wanted():
            return True
        who = _who(config)
        report = make(who, day, domain, self._tally.of(day, domain))
        # Both are tried, whatever becomes of the first.
        handed_in = [self._post(report, host, path, config.direct_delivery.allow_private) for host, path in wanted.web]
        if wanted.mail:
            handed_in.append(self._mail(who, report, wanted.mail, now))
        return any(handed_in)

    def _post(self, report: TlsReport, host: str, path: str, allow_private: bool) -> bool:
        """RFC 8460 5.4."""
        try:
            response = self._https.post(host, path, MEDIA_TYPE, report.packed, allow_private)
        except MailerError as error:
            log.warning("tlsrpt.not_sent domain=%s to=%s reason=%r", report.domain, host, str(error))
            return False
        if not 200 <= response.status <= 299:
            log.warning("tlsrpt.not_sent domain=%s to=%s reason=%r", report.domain, host, f"answered {response.status}")
            return False
        log.info("tlsrpt.sent domain=%s to=%s id=%s", report.domain, host, report.id)
        return True

    def _mail(self, who: Reporting, report: TlsReport, to: tuple[Address, ...], now: float) -> bool:
        if self.submit is None:
            return False
        envelope, content = as_mail(who, report, to, now)
        try:
            self.submit(envelope, content)
        except MailerError as error:
            log.warning("tlsrpt.not_sent domain=%s to=spool reason=%r", report.domain, str(error))
            return False
        log.info("tlsrpt.sent domain=%s message=%s id=%s", report.domain, envelope.id, report.id)
        return True


def wanted_by(records: Iterable[str]) -> Wanted:
    """What the TXT records at ``_smtp._tls`` ask for (RFC 8460 3). Two records are none; what is no address is left out."""
    ours = [record for record in records if record.startswith("v=TLSRPTv1;")]
    if len(ours) != 1:
        return Wanted()
    parts = [part.strip().partition("=") for part in ours[0].split(";")[1:]]
    uris = [uri.strip() for key, _, value in parts if key.strip() == "rua" for uri in value.split(",")]
    mail: list[Address] = []
    web: list[tuple[str, str]] = []
    for uri in uris[:MAX_ADDRESSES]:
        scheme, _, rest = uri.partition(":")
        if scheme.lower() == "mailto" and (address := _address(rest)) is not None:
            mail.append(address)
        elif scheme.lower() == "https" and (place := _place(uri)) is not None:
            web.append(place)
    return Wanted(tuple(dict.fromkeys(mail)), tuple(dict.fromkeys(web)))


def _address(text: str) -> Address | None:
    try:
        return Address.parse(urllib.parse.unquote(text.partition("?")[0]))
    except AddressError:
        return None


def _place(url: str) -> tuple[str, str] | None:
    """Host and path of an URL that a report can go to."""
    try:
        parsed = urllib.parse.urlsplit(url)
        host, port = parsed.hostname or "", parsed.port or PORT
    except ValueError:
        return None
    path = (parsed.path or "/") + (f"?{parsed.query}" if parsed.query else "")
    is_sound = is_domain(host) and port == PORT and parsed.username is None and path.isascii() and path.isprintable()
    return (host, path) if is_sound and " " not in path else None


def _who(config: Config) -> Reporting:
    hostname = config.direct_delivery.ehlo_domain or config.hostname
    sender = Address.parse(config.tls_reports.sender or f"tls-reports@{hostname}", smtputf8=True)
    return Reporting(hostname, sender, config.tls_reports.contact or str(sender))
