"""What a domain says about TLS for mail *to* it: MTA-STS (RFC 8461) and TLS reports (RFC 8460). Both may be missing.

No threads, no locks; asks DNS and fetches the policy. Never fails: what is wrong is a finding.
"""

from __future__ import annotations

import re

from mailer.dns.lookup import Status
from mailer.doctor.case import Case
from mailer.doctor.dmarc import tags_of
from mailer.doctor.finding import Finding, failed, ok, warning
from mailer.doctor.names import CHECK_NAMESERVERS, addresses_of
from mailer.transport.https import Https, HttpsError
from mailer.transport.sts import POLICY_PATH, BadPolicy, Mode, StsPolicy, id_of, parse

FETCH_SECONDS = 10.0
REPORT_VERSION = "TLSRPTv1"
_REPORT_ADDRESS = re.compile(r"mailto:[^@\s]+@[^@\s]+|https://\S+", re.IGNORECASE)


def mta_sts(case: Case) -> Finding:
    """Whether others can get the policy that the domain announces, and whether its own mail servers fit it."""
    name = f"_mta-sts.{case.domain}"
    answer = case.dns.txt(name)
    if answer.status is Status.FAILED:
        return warning(f"{name}: {answer.why}", CHECK_NAMESERVERS)
    if not any(record.startswith("v=STSv1") for record in answer.records):
        return ok(f"{name}: none; it is not needed to send mail")
    policy_id = id_of(answer.records)
    if not policy_id:
        to_do = 'publish one: "v=STSv1; id=20260101000000"'
        return failed(f"{name} has two records, or no id of 1 to 32 letters and digits", to_do)
    policy = _fetched(case)
    return policy if isinstance(policy, Finding) else _fitting(case, policy, f"id {policy_id}, mode {policy.mode.value}")


def _fetched(case: Case) -> StsPolicy | Finding:
    host = f"mta-sts.{case.domain}"
    https = Https(lambda name: addresses_of(case.dns, name), case.trust_store, case.https_port, FETCH_SECONDS)
    to_do = f"serve the policy at https://{host}{POLICY_PATH}, or remove the record _mta-sts.{case.domain}"
    try:
        response = https.get(host, POLICY_PATH, case.config.direct_delivery.allow_private)
        case.sightings.note(host, response.date, case.clock())
        if response.status != 200 or response.kind != "text/plain":  # RFC 8461 3.3, 3.2
            return failed(f"{host} answers {response.status} with {response.kind or 'no type'}, not 200 with text/plain", to_do)
        return parse(response.body)
    except HttpsError as error:
        return failed(f"the policy cannot be fetched: {error}", to_do)
    except BadPolicy as error:
        return failed(f"the policy of {host} is none: {error}", to_do)


def _fitting(case: Case, policy: StsPolicy, text: str) -> Finding:
    hosts = [host for _, host in case.dns.mx(case.domain).records if host]
    misfits = [host for host in hosts if not policy.allows(host)]
    if not misfits or policy.mode is Mode.NONE:
        return ok(text)
    judge = failed if policy.mode is Mode.ENFORCE else warning
    return judge(f"{text}, but it does not allow {', '.join(misfits)}", "name every MX in the policy, then give a new id")


def tls_rpt(case: Case) -> Finding:
    """Whether reports about TLS to the domain have somewhere to go."""
    name = f"_smtp._tls.{case.domain}"
    answer = case.dns.txt(name)
    if answer.status is Status.FAILED:
        return warning(f"{name}: {answer.why}", CHECK_NAMESERVERS)
    found = [tags for tags in map(tags_of, answer.records) if tags.get("v") == REPORT_VERSION]
    if not found:
        return ok(f"{name}: none; it is not needed to send mail")
    if len(found) > 1:  # RFC 8460 3
        return failed(f"{name} has {len(found)} records, so none of them counts", "remove all but one")
    places = found[0].get("rua", "")
    if any(_REPORT_ADDRESS.fullmatch(uri.strip()) is None for uri in places.split(",")):
        return failed(f"{name} says nowhere to report to: rua={places}", "name rua=mailto:… or https://…")
    return ok(f"{name}: reports go to {places}")
