"""SPF as a receiver works it out (RFC 7208 4): whether the record of a domain lets an address send.

An ``Evaluation`` belongs to one thread and one question. Within it, what ends the work early is an exception that does not
leave ``evaluate``; what DNS says becomes an ``Outcome``. Look-ups, void ones, names and time are all bounded.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from mailer.dns.lookup import Answer, Dns, Status
from mailer.dns.places import IpAddress
from mailer.doctor.spf_macro import Asked
from mailer.doctor.spf_record import Mechanism, Record, SpfSyntaxError, is_record, parse
from mailer.mail.outcome import MailerError

T = TypeVar("T")

MAX_LOOKUPS = 10  # RFC 7208 4.6.4: terms that ask DNS
MAX_VOID_LOOKUPS = 2  # RFC 7208 4.6.4: that found nothing
MAX_NAMES = 10  # RFC 7208 4.6.4: mail servers, or names of an address, that one term may come to
MAX_SECONDS = 20.0  # RFC 7208 4.6.4: the least that a receiver gives it


class Result(enum.Enum):
    """RFC 7208 2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 - the word of the RFC
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_BY_QUALIFIER = {"+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}


class Outcome(NamedTuple):
    """``by``: the term that matched, or why there is no better result. ``record``: the domain's, empty where there is none.
    ``lookups``: how many of the ten were spent."""

    result: Result
    by: str
    record: str
    lookups: int


class _Ended(MailerError):
    """The evaluation is over before a term has matched."""

    def __init__(self, result: Result, why: str) -> None:
        super().__init__(why)
        self.result = result


def evaluate(dns: Dns, asked: Asked) -> Outcome:
    """What a receiver makes of mail from ``asked``."""
    evaluation = Evaluation(dns, asked, time.monotonic() + MAX_SECONDS)
    try:
        result, by = evaluation.check(asked.sender_domain)
    except _Ended as ended:
        result, by = ended.result, str(ended)
    return Outcome(result, by, evaluation.record, evaluation.lookups)


class Evaluation:
    """One run of ``check_host`` (RFC 7208 4). ``deadline`` in monotonic seconds."""

    def __init__(self, dns: Dns, asked: Asked, deadline: float) -> None:
        self._dns = dns
        self._asked = asked
        self._deadline = deadline
        self._voids = 0
        self.lookups = 0
        self.record = ""

    def __repr__(self) -> str:
        return f"Evaluation({self._asked}, lookups={self.lookups})"

    def check(self, domain: str) -> tuple[Result, str]:
        """The result for the record of ``domain``, and what decided. Raises _Ended."""
        record = self._record_of(domain)
        for mechanism in record.mechanisms:
            if self._matches(mechanism, domain):
                return _BY_QUALIFIER[mechanism.qualifier], mechanism.text
        if not record.redirect:
            return Result.NEUTRAL, "no term matches"  # RFC 7208 4.7
        self._spend(f"redirect={record.redirect}")
        try:
            return self.check(self._asked.expand(record.redirect, domain))
        except _Ended as ended:
            if ended.result is Result.NONE:  # RFC 7208 6.1
                raise _Ended(Result.PERMERROR, f"redirect={record.redirect}: {ended}") from ended
            raise

    def _record_of(self, domain: str) -> Record:
        texts = [text for text in self._found(self._dns.txt(domain), domain) if is_record(text)]
        if not texts:
            raise _Ended(Result.NONE, f"{domain} has no SPF record")
        if len(texts) > 1:  # RFC 7208 4.5
            raise _Ended(Result.PERMERROR, f"{domain} has {len(texts)} SPF records, and only one is allowed")
        self.record = self.record or texts[0]
        try:
            return parse(texts[0])
        except SpfSyntaxError as error:
            raise _Ended(Result.PERMERROR, f"{domain}: {error}") from error

    def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        if mechanism.kind == "all":
            return True
        if mechanism.network is not None:
            return self._asked.address in mechanism.network
        self._spend(mechanism.text)
        target = self._asked.expand(mechanism.domain, domain) if mechanism.domain else domain
        match mechanism.kind:
            case "include":
                return self._includes(target)
            case "a":
                return self._is_among(self._addresses(target), mechanism)
            case "mx":
                return any(self._is_among(self._addresses(host), mechanism) for host in self._mail_hosts(target))
            case "exists":  # RFC 7208 5.7: always an A record
                return bool(self._counted(self._dns.addresses(target, socket.AF_INET), target))
        return self._is_named(target)

    def _includes(self, domain: str) -> bool:
        """RFC 7208 5.2: only a pass matches, and a domain without a record is an error."""
        try:
            return self.check(domain)[0] is Result.PASS
        except _Ended as ended:
            if ended.result is Result.NONE:
                raise _Ended(Result.PERMERROR, f"include:{domain}: {ended}") from ended
            raise

    def _addresses(self, name: str) -> tuple[str, ...]:
        family = socket.AF_INET if self._asked.address.version == 4 else socket.AF_INET6
        return self._counted(self._dns.addresses(name, family), name)

    def _mail_hosts(self, domain: str) -> Iterator[str]:
        hosts = [host for _, host in self._counted(self._dns.mx(domain), domain) if host]
        if len(hosts) > MAX_NAMES:
            raise _Ended(Result.PERMERROR, f"mx:{domain} has more than {MAX_NAMES} mail servers")
        yield from hosts

    def _is_among(self, addresses: tuple[str, ...], mechanism: Mechanism) -> bool:
        address = self._asked.address
        prefix = mechanism.prefix4 if address.version == 4 else mechanism.prefix6
        return any(address in ipaddress.ip_network(f"{found}/{prefix}", strict=False) for found in addresses)

    def _is_named(self, domain: str) -> bool:
        """RFC 7208 5.5, which advises against it: a name of the address, that leads back to it, is at or under ``domain``."""
        answer = self._dns.ptr(str(self._asked.address))
        if answer.status is Status.FAILED:  # RFC 7208 5.5: then it does not match
            return False
        names = self._counted(answer, self._asked.address.reverse_pointer)[:MAX_NAMES]
        return any(f".{name}".endswith(f".{domain.lower()}") and self._leads_back(name) for name in names)

    def _leads_back(self, name: str) -> bool:
        family = socket.AF_INET if self._asked.address.version == 4 else socket.AF_INET6
        return any(ipaddress.ip_address(found) == self._asked.address for found in self._dns.addresses(name, family).records)

    def _spend(self, term: str) -> None:
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise _Ended(Result.PERMERROR, f"more than {MAX_LOOKUPS} look-ups are needed (at {term})")

    def _counted(self, answer: Answer[T], name: str) -> tuple[T, ...]:
        """The records; finding none is counted."""
        records = self._found(answer, name)
        if not records:
            self._voids += 1
            if self._voids > MAX_VOID_LOOKUPS:
                raise _Ended(Result.PERMERROR, f"more than {MAX_VOID_LOOKUPS} look-ups found nothing (at {name})")
        return records

    def _found(self, answer: Answer[T], name: str) -> tuple[T, ...]:
        if answer.status is Status.FAILED:
            raise _Ended(Result.TEMPERROR, f"{name}: {answer.why}")
        if time.monotonic() > self._deadline:
            raise _Ended(Result.TEMPERROR, f"DNS took longer than {MAX_SECONDS:g} s")
        return answer.records


def asked_of(address: IpAddress, domain: str, helo: str) -> Asked:
    """The question for mail from ``domain`` that comes from ``address``."""
    return Asked(address, "postmaster", domain, helo)  # RFC 7208 4.3: for a sender without a local part
