"""The records of a domain that protect mail *to* it: MTA-STS (RFC 8461) and TLS reports (RFC 8460). Both may be missing.

No threads, no locks; asks DNS. Never fails.
"""

from __future__ import annotations

import re

from mailer.doctor.case import Case
from mailer.doctor.dmarc import tags_of
from mailer.doctor.finding import Finding, failed, ok, warning
from mailer.doctor.names import CHECK_NAMESERVERS
from mailer.transport.dns import Status

STS_VERSION, REPORT_VERSION = "STSv1", "TLSRPTv1"
_ID = re.compile(r"[A-Za-z0-9]{1,32}")  # RFC 8461 3.1
_REPORT_ADDRESS = re.compile(r"mailto:[^@\s]+@[^@\s]+|https://\S+", re.IGNORECASE)


def mta_sts(case: Case) -> Finding:
    name = f"_mta-sts.{case.domain}"
    tags = _only_record(case, name, STS_VERSION)
    if isinstance(tags, Finding):
        return tags
    if _ID.fullmatch(tags.get("id", "")) is None:
        return failed(f"{name} has no id of 1 to 32 letters and digits", 'publish "v=STSv1; id=20260101000000" there')
    return ok(f"{name}: id {tags['id']}")


def tls_rpt(case: Case) -> Finding:
    name = f"_smtp._tls.{case.domain}"
    tags = _only_record(case, name, REPORT_VERSION)
    if isinstance(tags, Finding):
        return tags
    wrong = [uri for uri in tags.get("rua", "").split(",") if _REPORT_ADDRESS.fullmatch(uri.strip()) is None]
    if wrong:
        return failed(f"{name} says nowhere to report to: rua={tags.get('rua', '')}", "name rua=mailto:… or https://…")
    return ok(f"{name}: reports go to {tags['rua']}")


def _only_record(case: Case, name: str, version: str) -> dict[str, str] | Finding:
    """The tags of the one record of ``version``; a finding where there is none, or more (RFC 8461 3.1, RFC 8460 3)."""
    answer = case.dns.txt(name)
    if answer.status is Status.FAILED:
        return warning(f"{name}: {answer.why}", CHECK_NAMESERVERS)
    found = [tags for tags in map(tags_of, answer.records) if tags.get("v") == version]
    if len(found) > 1:
        return failed(f"{name} has {len(found)} records, so none of them counts", "remove all but one")
    return found[0] if found else ok(f"{name}: none; it is not needed to send mail")
