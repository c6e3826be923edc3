"""Owns what is known from DNS, and is the only place where dnspython is used: answers as values, kept as long as they hold.

Any thread may ask; a question waits in the thread that asks it, at most ``timeout_seconds``, and others who ask the same wait
for its answer (memory.py). Never raises for what DNS says or does not say: an Answer has a status. Everything in an answer
comes from strangers: names that are none are dropped, and there is a limit on records, bytes and times.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from dns.rdatatype import RdataType

from mailer.dns.asking import ask, rcode_of
from mailer.dns.hosts import HostsFile, is_localhost
from mailer.dns.memory import Memory
from mailer.dns.nameservers import Nameservers
from mailer.mail.idna import to_ascii

T = TypeVar("T")

MAX_ENTRIES = 4096
MAX_RECORDS = 100  # of one answer; who has more mail servers or addresses than that is up to no good
MAX_TEXT_BYTES = 16_384  # of one answer: times MAX_ENTRIES, that is the most memory that hostile names can take
MAX_NAMES = 8  # that a chain of CNAMEs may lead through where the nameserver does not follow it itself
MAX_EXPLANATION_CHARS = 200
MAX_NAME_CHARS = 253  # RFC 1035 2.3.4: 255 octets on the wire

MIN_SECONDS, MAX_SECONDS = 1.0, 86_400.0
MAX_NEGATIVE_SECONDS = 3600.0  # RFC 2308 5 advises one to three hours
FAILED_SECONDS = 5.0  # RFC 9520 3.2: a server in trouble is left alone for a moment

UDP_PAYLOAD_BYTES = 1232  # is not fragmented on any usual path
WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP)  # what servers say that know no EDNS (RFC 6891 7)

# What is asked for, and what comes with an answer. dnspython imports each when it first meets one: then it may be too late
# for the executable, whose file a newer one may have replaced.
for _kind in ("A", "AAAA", "MX", "TXT", "TLSA", "PTR", "CNAME", "DNAME", "SOA", "NS", "OPT", "RRSIG", "NSEC", "NSEC3", "DS"):
    dns.rdata.get_rdata_class(dns.rdataclass.IN, RdataType[_kind])  # type: ignore[no-untyped-call]

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER_LAST = re.compile(r"(?:.*\.)?[0-9]+")


class Status(enum.Enum):
    FOUND = "found"
    NO_DATA = "no data"  # the name exists, without such records
    NO_SUCH_NAME = "no such name"
    FAILED = "failed"  # nobody knows: SERVFAIL, REFUSED, time-out, a signature that does not verify


class Answer(NamedTuple, Generic[T]):
    """What DNS says about a name. ``is_authentic``: a validating resolver vouches for it. ``why``: for people, empty when
    found. ``name``: the canonical name that CNAMEs led to. FOUND without records: there were some, none of use."""

    status: Status
    records: tuple[T, ...]
    is_authentic: bool
    why: str
    name: str


class Tlsa(NamedTuple):
    """RFC 6698 2.1."""

    usage: int
    selector: int
    matching: int
    data: bytes


class _Response(NamedTuple):
    """One message of a nameserver, taken apart. ``records`` are dnspython's."""

    status: Status
    records: tuple[Any, ...]
    name: str
    seconds: float
    is_authentic: bool
    why: str


class Dns:
    """``nameservers``: ``ip`` or ``ip:port``; none: the system's. ``timeout_seconds``: for one question, over all of them.
    ``hosts``: what the machine itself says about names; None is /etc/hosts."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        timeout_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        hosts: HostsFile | None = None,
    ) -> None:
        self._nameservers = Nameservers(nameservers, clock)
        self._hosts = hosts or HostsFile()
        self._timeout_seconds = timeout_seconds
        self._memory: Memory[tuple[str, RdataType], Answer[Any]] = Memory(MAX_ENTRIES, clock)

    def __repr__(self) -> str:
        return f"Dns({self._nameservers!r}, {self._memory!r})"

    def mx(self, domain: str) -> Answer[tuple[int, str]]:
        """Preference and host of each mail server, the host without a dot at its end; empty for the null MX (RFC 7505 3)."""
        return self._find(domain, RdataType.MX, _read_mx)

    def addresses(self, host: str, family: socket.AddressFamily) -> Answer[str]:
        """The addresses of one family: the machine's own word on them (/etc/hosts), else A or AAAA."""
        name = _ascii(host)
        local = self._hosts.addresses(name or "")
        if name and local:
            version = 4 if family == socket.AF_INET else 6
            of_family = tuple(address for address in local if ipaddress.ip_address(address).version == version)
            if of_family:
                return Answer(Status.FOUND, of_family, False, "", name)
            return Answer(Status.NO_DATA, (), False, f"{name} has no such address in the hosts file", name)
        return self._find(host, RdataType.A if family == socket.AF_INET else RdataType.AAAA, _read_address)

    def txt(self, name: str) -> Answer[str]:
        """The strings of each record joined (RFC 7208 3.3), a byte a character."""
        return self._find(name, RdataType.TXT, _read_txt)

    def tlsa(self, name: str) -> Answer[Tlsa]:
        return self._find(name, RdataType.TLSA, _read_tlsa)

    def ptr(self, address: str) -> Answer[str]:
        """The names of an IP address. Raises ValueError for what is none."""
        return self._find(ipaddress.ip_address(address).reverse_pointer, RdataType.PTR, _read_ptr)

    def forget(self) -> None:
        self._memory.forget()

    def _find(self, text: str, kind: RdataType, read: Callable[[Any], T | None]) -> Answer[T]:
        name = _ascii(text)
        if name is None:
            return Answer(Status.NO_SUCH_NAME, (), False, "not a domain name", text)
        if is_localhost(name):
            return Answer(Status.NO_DATA, (), False, f"{name} is this machine, which DNS does not know", name)
        return self._memory.recall((name, kind), lambda: self._follow(name, kind, read))

    def _follow(self, name: str, kind: RdataType, read: Callable[[Any], T | None]) -> tuple[Answer[T], float]:
        """Ask, and ask on where a CNAME leads elsewhere; the answer and the seconds that it holds."""
        ends = time.monotonic() + self._timeout_seconds
        seconds, is_authentic, seen = MAX_SECONDS, True, {name}
        current = name
        while True:
            said = self._ask(current, kind, ends - time.monotonic())
            seconds = min(seconds, said.seconds)
            is_authentic = is_authentic and said.is_authentic
            if said.status is not Status.NO_DATA or said.name == current:
                break
            current = said.name
            if current in seen or len(seen) >= MAX_NAMES:
                said = _failure(current, f"{name} is an alias that leads in a circle or too far")
                break
            seen.add(current)
        if said.status is Status.FAILED:
            return Answer(said.status, (), False, said.why, said.name), FAILED_SECONDS
        records = _limited(value for value in map(read, said.records) if value is not None)
        return Answer(said.status, records, is_authentic, said.why, said.name), max(MIN_SECONDS, seconds)

    def _ask(self, name: str, kind: RdataType, seconds: float) -> _Response:
        """One question over the wire."""
        ends = time.monotonic() + seconds
        servers = self._nameservers.current()
        query = dns.message.make_query(name, kind, use_edns=0, want_dnssec=True, payload=UDP_PAYLOAD_BYTES)
        # AD in a question: say in the answer whether it is authentic (RFC 6840 5.7), for resolvers that look for it.
        query.flags |= dns.flags.AD
        heard = ask(servers, query.to_wire(), seconds)
        if heard.wire and rcode_of(heard.wire) in WITHOUT_EDNS:
            query.use_edns(False)
            heard = ask(servers, query.to_wire(), ends - time.monotonic())
        if heard.server is None:
            return _failure(name, f"{name} {kind.name}: {heard.why} ({', '.join(map(str, servers))})")
        self._nameservers.heard(heard.server, heard.silent)
        try:
            message = dns.message.from_wire(heard.wire, ignore_trailing=True, continue_on_error=True)
            return _take_apart(message, name, kind, heard.server.vouches)
        except (dns.exception.DNSException, ValueError) as error:
            return _failure(name, f"{name} {kind.name}: nonsense from {heard.server}: {type(error).__name__}")


def _take_apart(message: dns.message.Message, name: str, kind: RdataType, vouches: bool) -> _Response:
    """What a message says. Raises DNSException where it contradicts itself, or its aliases lead in a circle."""
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or not isinstance(message, dns.message.QueryMessage):
        return _failure(name, f"{name} {kind.name}: {dns.rcode.to_text(rcode)}{_explanation(message)}")
    chain = message.resolve_chaining()
    # One broken record (a TLSA digest of a wrong length) does not spoil those beside it, unless it is all there is.
    missing = _record_count(message.wire) - sum(map(len, message.answer))
    if message.errors and (missing > len(message.errors) or (missing and chain.answer is None)):
        raise dns.exception.FormError
    canonical = chain.canonical_name.to_text(omit_final_dot=True).lower()
    is_authentic = vouches and bool(message.flags & dns.flags.AD)
    seconds = min(float(chain.minimum_ttl), MAX_SECONDS)
    if chain.answer is not None:
        records = tuple(chain.answer)[:MAX_RECORDS]
        return _Response(Status.FOUND, records, canonical, seconds, is_authentic, "")
    seconds = min(seconds, MAX_NEGATIVE_SECONDS)
    if rcode == dns.rcode.NXDOMAIN:
        return _Response(Status.NO_SUCH_NAME, (), canonical, seconds, is_authentic, f"{canonical} does not exist")
    in_authority = {rrset.rdtype for rrset in message.authority}
    if RdataType.NS in in_authority and RdataType.SOA not in in_authority:
        # RFC 2308 2.2: not "there is nothing" but "ask those". To take it for the former would return all mail.
        return _failure(name, f"{name} {kind.name}: the nameserver is no resolver, it refers to others")
    if not _NAME.fullmatch(canonical):
        return _failure(name, f"{name} is an alias of what is no domain name")
    return _Response(Status.NO_DATA, (), canonical, seconds, is_authentic, f"{canonical} has no {kind.name} record")


def _record_count(wire: bytes | None) -> int:
    """How many records the answer section has by the message's header (RFC 1035 4.1.1: ANCOUNT)."""
    return int.from_bytes(wire[6:8], "big") if wire else 0


def _failure(name: str, why: str) -> _Response:
    return _Response(Status.FAILED, (), name, FAILED_SECONDS, False, why)


def _explanation(message: dns.message.Message) -> str:
    """What the server adds to its refusal (RFC 8914): that a signature does not verify, for one."""
    for option in message.options:
        if isinstance(option, dns.edns.EDEOption):
            return f", {option.to_text()[:MAX_EXPLANATION_CHARS]}"
    return ""


def _limited(values: Iterable[T]) -> tuple[T, ...]:
    """As many of ``values`` as may be kept."""
    kept: list[T] = []
    size = 0
    for value in values:
        size += len(str(value))
        if size > MAX_TEXT_BYTES:
            break
        kept.append(value)
    return tuple(kept)


def _ascii(text: str) -> str | None:
    """The domain name that ``text`` is, in ASCII and lower case; None for what is none."""
    try:
        name = to_ascii(text.removesuffix("."))
    except ValueError:
        return None
    return name if len(name) <= MAX_NAME_CHARS and _NAME.fullmatch(name) else None


def _read_mx(record: Any) -> tuple[int, str] | None:
    if record.exchange == dns.name.root:
        return record.preference, ""
    host = _host_of(record.exchange)
    return None if host is None else (record.preference, host)


def _host_of(name: dns.name.Name) -> str | None:
    """The host that a record names; None for what cannot be one: strange bytes, or an IP address written as a name."""
    host = _ascii(name.to_text(omit_final_dot=True))
    return None if host is None or _NUMBER_LAST.fullmatch(host) else host


def _read_address(record: Any) -> str:
    return str(record.address)


def _read_txt(record: Any) -> str:
    return b"".join(record.strings).decode("latin-1")


def _read_tlsa(record: Any) -> Tlsa:
    return Tlsa(record.usage, record.selector, record.mtype, record.cert)


def _read_ptr(record: Any) -> str | None:
    return _host_of(record.target)
