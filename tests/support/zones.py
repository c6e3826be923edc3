"""What the tests' nameserver knows: records by name and type, and the answers that they make.

No threads, no lock: the nameserver has one. Nothing here fails but by an exception of dnspython's for what is no record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import dns.zone
from dns.rdatatype import RdataType

TTL = 300
NEGATIVE_TTL = 60
LONGEST_CHAIN = 20  # of aliases that an answer follows

Records = Mapping[str, Mapping[str, str | Sequence[str]]]
_Key = tuple[dns.name.Name, RdataType, RdataType]  # name, type, and for RRSIG the type that it covers


class Zones:
    def __init__(self) -> None:
        self._rrsets: dict[_Key, dns.rrset.RRset] = {}

    def __repr__(self) -> str:
        return f"Zones(rrsets={len(self._rrsets)})"

    def add(self, name: str, kind: str, *data: str, ttl: int) -> None:
        added = dns.rrset.from_text_list(_name(name), ttl, "IN", kind, data, origin=dns.name.root, relativize=False)
        rrset = self._rrsets.setdefault((added.name, added.rdtype, added.covers), added)
        for record in added:
            rrset.add(record)

    def remove(self, name: str, kind: str) -> None:
        for key in list(self._rrsets):
            if key[0] == _name(name) and kind in ("", key[1].name):
                del self._rrsets[key]

    def load(self, zone: dns.zone.Zone) -> None:
        assert zone.origin is not None
        for key in list(self._rrsets):
            if key[0].is_subdomain(zone.origin):
                del self._rrsets[key]
        for name, rdataset in zone.iterate_rdatasets():
            rrset = dns.rrset.from_rdata_list(name.derelativize(zone.origin), rdataset.ttl, list(rdataset))
            self._rrsets[rrset.name, rdataset.rdtype, rdataset.covers] = rrset

    def response(self, query: dns.message.QueryMessage) -> dns.message.Message:
        """What the records say."""
        response = dns.message.make_response(query, recursion_available=True)
        signed = bool(query.ednsflags & dns.flags.DO)
        name, kind = query.question[0].name.canonicalize(), query.question[0].rdtype
        while (alias := self._rrsets.get((name, RdataType.CNAME, RdataType.NONE))) and kind is not RdataType.CNAME:
            self._put(response.answer, alias, signed)
            name = alias[0].target.canonicalize()
            if len(response.answer) > LONGEST_CHAIN:  # a circle
                return response
        found = self._rrsets.get((name, kind, RdataType.NONE))
        if found is not None:
            self._put(response.answer, found, signed)
            return response
        exists = any(key[0].is_subdomain(name) for key in self._rrsets)
        if not exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        self._deny(response, name, exists, signed)
        return response

    def _deny(self, response: dns.message.Message, name: dns.name.Name, exists: bool, signed: bool) -> None:
        """SOA (RFC 2308 3), and in a signed zone the proof that there is nothing (RFC 4035 3.1.3)."""
        zones = [key[0] for key in self._rrsets if key[1] is RdataType.SOA and name.is_subdomain(key[0])]
        if not zones:
            data = f"ns.invalid. nobody.invalid. 1 60 60 60 {NEGATIVE_TTL}"
            response.authority.append(dns.rrset.from_text(dns.name.Name(name.labels[-2:]), TTL, "IN", "SOA", data))
            return
        apex = max(zones, key=len)
        self._put(response.authority, self._rrsets[apex, RdataType.SOA, RdataType.NONE], signed)
        if signed:
            chain = sorted(key[0] for key in self._rrsets if key[1] is RdataType.NSEC and key[0].is_subdomain(apex))
            encloser = name  # the closest name above that does exist: a wildcard there is to be denied as well
            while not any(key[0].is_subdomain(encloser) for key in self._rrsets):
                encloser = encloser.parent()
            denied = [name] if exists else [name, dns.name.from_text("*", encloser)]
            for owner in {max((owner for owner in chain if owner <= each), default=apex) for each in denied} & set(chain):
                self._put(response.authority, self._rrsets[owner, RdataType.NSEC, RdataType.NONE], signed)

    def _put(self, section: list[dns.rrset.RRset], rrset: dns.rrset.RRset, signed: bool) -> None:
        section.append(_copy(rrset))
        signature = self._rrsets.get((rrset.name, RdataType.RRSIG, rrset.rdtype))
        if signed and signature is not None:
            section.append(_copy(signature))


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text).canonicalize()


def _copy(rrset: dns.rrset.RRset) -> dns.rrset.RRset:
    """For an answer, which outlives the lock that guards the records."""
    return dns.rrset.from_rdata_list(rrset.name, rrset.ttl, list(rrset))
