"""The DMARC record: found by walking up from a domain, as a value; and the organisation that two domains may share.

No threads, no locks; asks DNS, at most ``MAX_QUERIES`` times a domain. The walk is that of DMARCbis, which needs no list of
public suffixes. Never fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mailer.dns.lookup import Dns, Status

VERSION = "DMARC1"
POLICIES = ("none", "quarantine", "reject")
MAX_QUERIES = 8  # of one walk: longer names are cut to as many labels but one


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """``policy`` and ``subdomain_policy``: one of ``POLICIES``, or what stands there instead. ``psd``: ``y``, ``n`` or ``u``."""

    policy: str
    subdomain_policy: str
    is_strict_dkim: bool
    is_strict_spf: bool
    reports_to: str
    psd: str


class Walk(NamedTuple):
    """What the walk up from a domain has found: records by domain, the longest name first; ``fault`` if DNS did not answer,
    or if a domain has several."""

    domain: str
    records: dict[str, DmarcRecord]
    fault: str

    @property
    def organisation(self) -> str:
        """The domain of the organisation, for relaxed alignment; the domain itself where no record says."""
        names = list(self.records)
        for position, name in enumerate(names):
            if self.records[name].psd == "n":
                return name
            if self.records[name].psd == "y" and name != self.domain:
                return names[position - 1] if position else self.domain
        return names[-1] if names else self.domain

    @property
    def published(self) -> tuple[str, DmarcRecord] | None:
        """The record that holds for the domain, and whose it is."""
        for name in (self.domain, self.organisation):
            if name in self.records:
                return name, self.records[name]
        return None


def parse(text: str) -> DmarcRecord | None:
    """The record that ``text`` is; None for other text (RFC 7489 6.3: ``v`` stands first, and exactly so)."""
    tags = tags_of(text)
    if next(iter(tags.items()), ("", "")) != ("v", VERSION):
        return None
    policy = tags.get("p", "").lower()
    return DmarcRecord(
        policy=policy,
        subdomain_policy=tags.get("sp", policy).lower(),
        is_strict_dkim=tags.get("adkim", "r").lower() == "s",
        is_strict_spf=tags.get("aspf", "r").lower() == "s",
        reports_to=tags.get("rua", ""),
        psd=tags.get("psd", "u").lower(),
    )


def tags_of(text: str) -> dict[str, str]:
    """``name=value`` pairs between semicolons, in their order; the first of a name wins."""
    tags: dict[str, str] = {}
    for part in text.split(";"):
        name, sign, value = part.partition("=")
        if sign:
            tags.setdefault(name.strip().lower(), value.strip())
    return tags


def walk(dns: Dns, domain: str) -> Walk:
    """All records from ``domain`` up to its top-level domain."""
    records: dict[str, DmarcRecord] = {}
    for name in _names(domain):
        answer = dns.txt(f"_dmarc.{name}")
        if answer.status is Status.FAILED:
            return Walk(domain, records, f"_dmarc.{name}: {answer.why}")
        found = [record for record in map(parse, answer.records) if record is not None]
        if len(found) > 1:  # RFC 7489 6.6.3: then none counts
            return Walk(domain, records, f"_dmarc.{name} has {len(found)} DMARC records, so none of them counts")
        if found:
            records[name] = found[0]
            if found[0].psd == "n":
                break
    return Walk(domain, records, "")


def _names(domain: str) -> list[str]:
    labels = domain.split(".")
    shorter = labels[1:] if len(labels) <= MAX_QUERIES else labels[-(MAX_QUERIES - 1) :]
    return [domain, *(".".join(shorter[start:]) for start in range(len(shorter)))]
