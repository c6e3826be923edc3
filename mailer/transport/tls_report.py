"""A report about TLS as a value: what one domain is told of one day, as JSON and as mail (RFC 8460 4.4, 5.3).

Functions over values; no threads, no locks, nothing that fails. What strangers said stands in the JSON alone, escaped and
packed, never in a header: a domain that gets here is a name that DNS knew.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mailer.mail.address import Address
from mailer.mail.content import Content, MemoryContent
from mailer.mail.envelope import Envelope, Options, Recipient, new_message_id
from mailer.mail.headers import format_date
from mailer.transport.tlsrpt import DAY_SECONDS, Counts, Day, Detail, PolicyName

MEDIA_TYPE = "application/tlsrpt+gzip"

_TEXT = """This is a report about TLS in mail to {domain} (RFC 8460), for the day {date} (UTC).

Sent because the TXT record of _smtp._tls.{domain} asks for it. Questions: {contact}
"""


class Reporting(NamedTuple):
    """Who reports: ``hostname`` is the submitter's name, ``sender`` and ``contact`` are addresses."""

    hostname: str
    sender: Address
    contact: str


class TlsReport(NamedTuple):
    """``packed``: the JSON, as gzip makes it; ``id`` stays the same when a report is made again."""

    domain: str
    day: Day
    id: str
    packed: bytes

    @property
    def file_name(self) -> str:
        """RFC 8460 5.1, without the submitter's name."""
        start = self.day * DAY_SECONDS
        return f"{self.domain}!{start}!{start + DAY_SECONDS - 1}!{self.id.partition('@')[0]}.json.gz"


def make(who: Reporting, day: Day, domain: str, counted: Mapping[PolicyName, Counts]) -> TlsReport:
    """The report of what was counted for ``domain`` on ``day``."""
    digest = hashlib.sha256(f"{who.hostname} {domain} {day}".encode()).hexdigest()[:16]
    report_id = f"{_date(day)}.{digest}@{who.hostname}"
    report = {
        "organization-name": who.sender.domain_key,
        "date-range": {"start-datetime": f"{_date(day)}T00:00:00Z", "end-datetime": f"{_date(day)}T23:59:59Z"},
        "contact-info": who.contact,
        "report-id": report_id,
        "policies": [_policy(name, counts) for name, counts in counted.items()],
    }
    return TlsReport(domain, day, report_id, gzip.compress(json.dumps(report).encode(), mtime=0))


def _policy(name: PolicyName, counts: Counts) -> dict[str, object]:
    policy: dict[str, object] = {"policy-type": name.kind, "policy-domain": name.domain}
    if name.lines:
        policy["policy-string"] = list(name.lines)
    if name.mx:
        policy["mx-host"] = list(name.mx)
    told: dict[str, object] = {
        "policy": policy,
        "summary": {
            "total-successful-session-count": counts.successes,
            "total-failure-session-count": counts.failures,
        },
    }
    if counts.details:
        told["failure-details"] = [_detail(detail, number) for detail, number in counts.details.items()]
    return told


def _detail(detail: Detail, number: int) -> dict[str, object]:
    known = {
        "sending-mta-ip": detail.our_address,
        "receiving-mx-hostname": detail.host,
        "receiving-ip": detail.address,
        "failure-reason-code": detail.reason,
    }
    return {
        "result-type": detail.result.value,
        **{key: value for key, value in known.items() if value},
        "failed-session-count": number,
    }


def as_mail(who: Reporting, report: TlsReport, to: Sequence[Address], now: float) -> tuple[Envelope, Content]:
    """The report as a message (RFC 8460 5.3)."""
    name = f"{who.hostname}!{report.file_name}"
    boundary = f"=_{hashlib.sha256(report.packed).hexdigest()[:32]}"
    text = _TEXT.format(domain=report.domain, date=_date(report.day), contact=who.contact)
    packed = "\n".join(textwrap.wrap(base64.b64encode(report.packed).decode(), 76))
    people = ",\n ".join(address.to_path().decode() for address in to)
    lines = f"""Date: {format_date(now)}
From: {who.sender.to_path().decode()}
To: {people}
Subject: Report Domain: {report.domain}
 Submitter: {who.hostname}
 Report-ID: <{report.id}>
Message-ID: <{report.id.partition("@")[0]}.{int(now)}@{who.hostname}>
TLS-Report-Domain: {report.domain}
TLS-Report-Submitter: {who.hostname}
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: multipart/report; report-type="tlsrpt";
 boundary="{boundary}"

--{boundary}
Content-Type: text/plain; charset=us-ascii

{text}
--{boundary}
Content-Type: {MEDIA_TYPE}
Content-Transfer-Encoding: base64
Content-Disposition: attachment;
 filename="{name}"

{packed}
--{boundary}--
"""
    data = lines.replace("\n", "\r\n").encode()
    recipients = tuple(Recipient(index, address) for index, address in enumerate(to))
    options = Options(body="7BIT" if data.isascii() else "", smtputf8=not data.isascii(), is_report=True)
    return Envelope(new_message_id(now), who.sender, recipients, len(data), now, options), MemoryContent(data)


def _date(day: Day) -> str:
    return datetime.datetime.fromtimestamp(day * DAY_SECONDS, datetime.UTC).date().isoformat()
