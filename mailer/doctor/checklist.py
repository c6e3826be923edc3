"""Which checks a case needs, in which order they are told, and why the others are left out.

No state; ``report`` lets ``examination`` carry them out, first those that stand alone, then those that need what those found.
Takes at most ``MAX_SECONDS``; never fails.
"""

from __future__ import annotations

from functools import partial

from mailer.doctor.blocklists import dnsbl
from mailer.doctor.case import Case
from mailer.doctor.disk import disk
from mailer.doctor.dkim import dkim
from mailer.doctor.examination import Check, examine
from mailer.doctor.finding import Finding, skipped
from mailer.doctor.machine import clock, open_files, ports, trust_store
from mailer.doctor.names import mx, ptr
from mailer.doctor.policies import mta_sts, tls_rpt
from mailer.doctor.reach import egress, provider
from mailer.doctor.rights import permissions
from mailer.doctor.secrecy import secrets_of, without
from mailer.doctor.sender import dmarc, spf
from mailer.doctor.spool import spool

FIRST_SECONDS = 45.0  # a provider is given three steps of 6 s, eight at a time
LATER_SECONDS = 15.0
MAX_SECONDS = FIRST_SECONDS + LATER_SECONDS

OF_THE_DOMAIN = {"mx": mx, "spf": spf, "mta-sts": mta_sts, "tls-rpt": tls_rpt}
OF_THE_SENDER = {"dkim": dkim, "ptr": ptr, "egress": egress}
OF_THE_MACHINE = {
    "trust-store": trust_store,
    "disk": disk,
    "spool": spool,
    "permissions": permissions,
    "ports": ports,
    "open-files": open_files,
}
ORDER = ("mx", "spf", "dkim", "dmarc", "ptr", "egress", "mta-sts", "tls-rpt", "dnsbl", "providers")
"""In which these are told; providers and this machine's follow."""

NO_DOMAIN = "no domain is known: name one (mailer doctor example.com), or set dkim.domain"
NOT_DIRECT = "directDelivery.enabled is false: recipients see the servers and names of the providers"


def report(case: Case, is_named: bool, asks_blocklists: bool) -> dict[str, Finding]:
    """All findings by the names of their checks, in the order in which they are told.

    ``is_named``: somebody named the domain, an address or a target, so wants to know though providers deliver.
    """
    left_out = _left_out(case, is_named)
    first = {name: partial(check, case) for name, check in (OF_THE_DOMAIN | OF_THE_SENDER | OF_THE_MACHINE).items()}
    if asks_blocklists:
        first["dnsbl"] = partial(dnsbl, case)
    first |= {f"provider {p.name}": partial(provider, case, p) for p in case.config.forward_providers}
    found = left_out | examine([Check(name, look) for name, look in first.items() if name not in left_out], FIRST_SECONDS)
    later = {"dmarc": partial(dmarc, case, found), "clock": partial(clock, case)}
    found |= examine([Check(name, look) for name, look in later.items() if name not in left_out], LATER_SECONDS)
    secrets = secrets_of(case.config)
    return {name: without(secrets, found[name]) for name in sorted(found, key=_place_of)}


def _place_of(name: str) -> int:
    """Sorting is stable: what has no place of its own keeps the order in which it was asked for."""
    name = "providers" if name.startswith("provider ") else name
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _left_out(case: Case, is_named: bool) -> dict[str, Finding]:
    """What is not looked at, and why."""
    left_out: dict[str, Finding] = {}
    config = case.config
    if not config.forward_providers:
        left_out["providers"] = skipped("forwardSMTP is false: no provider is used")
    if not case.domain:
        names = (*OF_THE_DOMAIN, "dmarc", *(() if case.targets else ("egress",)))
        left_out |= dict.fromkeys(names, skipped(NO_DOMAIN))
    if not (config.direct_delivery.enabled or is_named):
        counts_anyway = {"dkim", "dmarc"} if config.dkim.enabled else set()
        left_out |= dict.fromkeys({*OF_THE_DOMAIN, *OF_THE_SENDER, "dmarc"} - counts_anyway, skipped(NOT_DIRECT))
    return left_out
