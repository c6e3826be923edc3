"""Whether receivers can tell that our mail is the domain's: SPF and DMARC.

No threads, no locks; asks DNS. Never fails. ``dmarc`` needs what the checks of SPF and DKIM have found.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailer.dns.places import IpAddress, is_public
from mailer.doctor.case import Case
from mailer.doctor.dmarc import POLICIES, DmarcRecord, walk
from mailer.doctor.finding import Finding, Status, failed, ok, warning, worst_of
from mailer.doctor.names import CHECK_NAMESERVERS
from mailer.doctor.spf import Outcome, Result, asked_of, evaluate
from mailer.doctor.spf_record import VERSION
from mailer.mail.address import is_domain
from mailer.signing.origin import is_at_or_under

NEEDED_BY_LARGE = "Gmail, Yahoo and Microsoft ask it of everybody who sends much"


def spf(case: Case) -> Finding:
    """Whether the domain's record lets each of our addresses send."""
    if not case.addresses:
        return failed("this machine has no way to the internet", "set up its network, or name its public address with --address")
    findings = [_permitted(case, address) for address in case.addresses]
    if case.config.direct_delivery.enabled and is_domain(case.ehlo_name) and case.ehlo_name != case.domain:
        findings += [_reports_permitted(case, address) for address in case.addresses]
    return worst_of(findings)


def _permitted(case: Case, address: IpAddress) -> Finding:
    if not case.has_given_addresses and not is_public(address):
        return warning(f"{address} is private, so others see another address", "name the public one: mailer doctor --address …")
    domain = case.domain
    outcome = evaluate(case.dns, asked_of(address, domain, case.ehlo_name))
    result = outcome.result
    text = f"{domain} says {result.value} for {address} ({outcome.by})"
    if result is Result.PASS:
        if outcome.by.lstrip("+").lower() == "all":
            to_do = f"replace {outcome.by} with ip{address.version}:{address} ~all"
            return warning(f"{text}: everybody may send as {domain}", to_do)
        return ok(f"{text}, {outcome.lookups} of 10 look-ups")
    if result is Result.NONE:
        return failed(outcome.by, f'publish at {domain} the TXT record "{VERSION} ip{address.version}:{address} -all"')
    if result is Result.TEMPERROR:
        return failed(text, CHECK_NAMESERVERS)
    if result is Result.PERMERROR:
        return failed(text, "correct the record: receivers treat it as if it were not there")
    if not case.config.direct_delivery.enabled:
        return warning(text, "nothing, if providers send all mail; else " + _inclusion(outcome, address))
    return failed(text, _inclusion(outcome, address))


def _reports_permitted(case: Case, address: IpAddress) -> Finding:
    """Delivery reports have the null sender, for which the name in EHLO stands (RFC 7208 2.4). It need not have a record."""
    outcome = evaluate(case.dns, asked_of(address, case.ehlo_name, case.ehlo_name))
    text = f"for reports, {case.ehlo_name} says {outcome.result.value} for {address} ({outcome.by})"
    if outcome.result in (Result.PASS, Result.NONE, Result.NEUTRAL):
        return ok("")
    return warning(text, f'publish at {case.ehlo_name} the TXT record "{VERSION} a -all"')


def _inclusion(outcome: Outcome, address: IpAddress) -> str:
    """How the record would have to read."""
    rest = outcome.record[len(VERSION) :]
    return f'let the record include us: "{VERSION} ip{address.version}:{address}{rest}"'


def dmarc(case: Case, earlier: Mapping[str, Finding]) -> Finding:
    """Whether there is a policy, and whether mail of ours passes it: by SPF or DKIM, for a domain that is aligned with From."""
    found = walk(case.dns, case.domain)
    if found.fault:
        return failed(found.fault, CHECK_NAMESERVERS)
    if found.published is None:
        to_do = f'publish at _dmarc.{case.domain} the TXT record "v=DMARC1; p=none"'
        return warning(f"{case.domain} has no DMARC record; {NEEDED_BY_LARGE}", to_do)
    owner, record = found.published
    policy = record.policy if owner == case.domain else record.subdomain_policy
    if policy not in POLICIES:
        return failed(f"_dmarc.{owner} has no policy: p={policy}", "set p to none, quarantine or reject")
    text = f"_dmarc.{owner} asks for {policy}"
    if not (case.config.direct_delivery.enabled or case.config.dkim.enabled):
        return ok(f"{text}; whether mail passes depends on what the providers sign")
    aligned = _aligned_by(case, record, found.organisation, earlier)
    if "DKIM" in aligned:
        return ok(f"{text}; aligned by {' and '.join(aligned)}")
    if aligned:
        return warning(f"{text}; aligned by SPF alone, which does not survive forwarding", "sign with DKIM for this domain")
    judge = warning if policy == "none" else failed
    to_do = "correct spf or dkim: one of them must be in order for this domain"
    return judge(f"{text}, and nothing of ours is aligned with From {case.domain}", to_do)


def _aligned_by(case: Case, record: DmarcRecord, organisation: str, earlier: Mapping[str, Finding]) -> list[str]:
    """What passes for a domain that counts as that of From (RFC 7489 3.1)."""
    aligned = []
    if _stands(earlier, "dkim") and any(
        domain == case.domain or (not record.is_strict_dkim and walk(case.dns, domain).organisation == organisation)
        for domain in signing_domains(case)
    ):
        aligned.append("DKIM")
    if case.config.direct_delivery.enabled and _stands(earlier, "spf"):
        aligned.append("SPF")  # strict or relaxed: the sender's domain is that of From, as far as anybody can know here
    return aligned


def signing_domains(case: Case) -> list[str]:
    """The ``d=`` of the signatures that a message from the domain gets."""
    dkim = case.config.dkim
    if not dkim.enabled:
        return []
    return list(dict.fromkeys(
        key.domain for _, key in dkim.all_keys if key.domain == dkim.domain or is_at_or_under(case.domain, key.domain)
    ))  # fmt: skip


def _stands(earlier: Mapping[str, Finding], name: str) -> bool:
    return name in earlier and earlier[name].status in (Status.OK, Status.WARNING)
