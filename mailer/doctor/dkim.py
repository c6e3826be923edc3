"""Whether receivers can verify our signatures: each key on disk beside the record that DNS publishes for it (RFC 6376 3.6).

No threads, no locks; reads the keys and asks DNS. Fails with KeyUnusable where a file names no selector.
"""

from __future__ import annotations

from mailer.dns.lookup import Status
from mailer.doctor.case import Case
from mailer.doctor.finding import Finding, failed, ok, warning, worst_of
from mailer.doctor.names import CHECK_NAMESERVERS
from mailer.signing.keys import KeyUnusable
from mailer.signing.origin import is_at_or_under
from mailer.signing.places import Place, places_of
from mailer.signing.record import State, compare, record_name


def dkim(case: Case) -> Finding:
    config = case.config.dkim
    if not config.enabled:
        domain = case.domain or "DOMAIN"
        return warning("no mail is signed, as large receivers ask", f"mailer dkim generate --domain {domain}, then dkim.enabled")
    places = places_of(config)
    findings = [_published(case, place) for place in places]
    if case.domain and not any(place.signs_all or is_at_or_under(case.domain, place.domain) for place in places):
        findings.append(warning(f"no key signs mail from {case.domain}", "add one to dkim.keys"))
    return worst_of(findings)


def _published(case: Case, place: Place) -> Finding:
    name = record_name(place.domain, place.selector)
    try:
        key = place.read()
    except KeyUnusable as error:
        return failed(str(error), f"mailer dkim generate --domain {place.domain}, or put the key in place")
    answer = case.dns.txt(name)
    if answer.status is Status.FAILED:
        return failed(f"{name}: {answer.why}", CHECK_NAMESERVERS)
    comparison = compare(answer.records, key)
    if comparison.state is State.MATCHES:
        return ok(f"{name} is the key in {place.key_file} ({key.kind}, {key.bits} bits)")
    judge = warning if comparison.verifies else failed
    return judge(f"{name}: {comparison.text}", "mailer dkim check shows the record to publish")
