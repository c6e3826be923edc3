"""The SPF record as a value: parsed strictly, since one wrong term makes a whole record an error (RFC 7208 4.6, 12).

Immutable; no threads, no locks. Fails with ``SpfSyntaxError``. Macros are expanded in ``spf_macro``.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mailer.mail.outcome import MailerError

VERSION = "v=spf1"

_TERM = re.compile(r"([+\-?~]?)([A-Za-z][A-Za-z0-9\-_.]*)(.*)", re.DOTALL)
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9\-_.]*)=(.*)", re.DOTALL)
_PREFIX = re.compile(r"(?:/(0|[1-9]\d?))?(?://(0|[1-9]\d{0,2}))?", re.ASCII)
_PREFIX_AT_END = re.compile(r"(?:/\d+)?(?://\d+)?\Z", re.ASCII)
_MACRO_STRING = re.compile(r"(?:%%|%_|%-|%\{[slodiphcrtvSLODIPHCRTV](?:[1-9][0-9]*)?[rR]?[.\-+,/_=]*\}|[!-$&-~])*")
_MACRO_AT_END = re.compile(r"%\{[^{}]*\}\Z")
_TOP_LABEL = re.compile(r"(?!\d+\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_NETWORK = re.compile(r"[0-9A-Fa-f:.]+(?:/(?:0|[1-9]\d{0,2}))?", re.ASCII)  # no netmask, no zone: ipaddress would take both
_WITH_DOMAIN = {"include": True, "a": False, "mx": False, "ptr": False, "exists": True}
"""The mechanisms that take a domain, and whether they must have one."""


class SpfSyntaxError(MailerError):
    """The text is no SPF record; the message says which term is wrong."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """``qualifier`` is one of ``+-~?``; ``domain`` may hold macros, empty for the domain of the record itself."""

    qualifier: str
    kind: str
    text: str
    domain: str = ""
    prefix4: int = 32
    prefix6: int = 128
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None


@dataclass(frozen=True, slots=True)
class Record:
    mechanisms: tuple[Mechanism, ...]
    redirect: str


def is_record(text: str) -> bool:
    """Whether a TXT record is one of SPF (RFC 7208 4.5): the version and then a space or nothing."""
    return text.lower() == VERSION or text.lower().startswith(VERSION + " ")


def parse(text: str) -> Record:
    """The record that ``text`` is. Raises SpfSyntaxError."""
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for term in text[len(VERSION) :].split(" "):
        modifier = _MODIFIER.fullmatch(term)
        if modifier is not None:
            _take_modifier(modifier[1].lower(), modifier[2], modifiers)
        elif term:
            mechanisms.append(_mechanism(term))
    return Record(tuple(mechanisms), modifiers.get("redirect", ""))


def _take_modifier(name: str, value: str, modifiers: dict[str, str]) -> None:
    if name in ("redirect", "exp"):
        if name in modifiers:
            raise SpfSyntaxError(f"{name}= is there twice")
        _check_domain(value, f"{name}={value}")
    elif _MACRO_STRING.fullmatch(value) is None:
        raise SpfSyntaxError(f"{name}={value} is no modifier")
    modifiers[name] = value


def _mechanism(term: str) -> Mechanism:
    match = _TERM.fullmatch(term)
    if match is None:
        raise SpfSyntaxError(f"{term!r} is no mechanism")
    qualifier, kind, rest = match[1] or "+", match[2].lower(), match[3]
    if kind == "all" and not rest:
        return Mechanism(qualifier, kind, term)
    if kind in ("ip4", "ip6") and rest.startswith(":"):
        return Mechanism(qualifier, kind, term, network=_network(kind, rest[1:], term))
    if kind not in _WITH_DOMAIN:
        raise SpfSyntaxError(f"{term!r} is no mechanism")
    return _with_domain(Mechanism(qualifier, kind, term), rest)


def _network(kind: str, text: str, term: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        if _NETWORK.fullmatch(text) is None:
            raise ValueError
        return ipaddress.IPv4Network(text, strict=False) if kind == "ip4" else ipaddress.IPv6Network(text, strict=False)
    except ValueError:
        raise SpfSyntaxError(f"{term!r} has no {'IPv4' if kind == 'ip4' else 'IPv6'} address or network") from None


def _with_domain(bare: Mechanism, rest: str) -> Mechanism:
    """``include:d``, ``a``, ``a:d/24//64``, ``mx``, ``ptr``, ``exists:d``."""
    domain, prefix = rest, ""
    if bare.kind in ("a", "mx"):
        at_end = _PREFIX_AT_END.search(rest)
        prefix = at_end[0] if at_end is not None else ""
        domain = rest[: len(rest) - len(prefix)]
    if domain:
        if not domain.startswith(":"):
            raise SpfSyntaxError(f"{bare.text!r} is no mechanism")
        _check_domain(domain[1:], bare.text)
    elif _WITH_DOMAIN[bare.kind]:
        raise SpfSyntaxError(f"{bare.text!r} names no domain")
    lengths = _PREFIX.fullmatch(prefix)
    prefix4 = int(lengths[1]) if lengths and lengths[1] else 32
    prefix6 = int(lengths[2]) if lengths and lengths[2] else 128
    if lengths is None or prefix4 > 32 or prefix6 > 128:
        raise SpfSyntaxError(f"{bare.text!r} has a prefix length that is none")
    return Mechanism(bare.qualifier, bare.kind, bare.text, domain[1:], prefix4, prefix6)


def _check_domain(text: str, term: str) -> None:
    """A domain-spec (RFC 7208 7.1): a macro string that ends in a macro or in a top label, which is not all digits."""
    _, dot, label = text.removesuffix(".").rpartition(".")
    ends_well = _MACRO_AT_END.search(text) is not None or (dot and _TOP_LABEL.fullmatch(label) is not None)
    if _MACRO_STRING.fullmatch(text) is None or not ends_well:
        raise SpfSyntaxError(f"{term!r} names no domain")
