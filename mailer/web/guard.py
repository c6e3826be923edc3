"""Who may ask over HTTP: by the peer's address, and by the Host and Origin that a browser sends (spec 5).

A page of some other site must not reach us through the browser of somebody who may: its requests carry that site's
Origin, and after DNS rebinding that site's name as Host. An IP literal cannot be rebound.

No threads, no locks: a ``Guard`` is a value. What cannot be read is refused.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from mailer.config.schema import Config
from mailer.policy.access import Access

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]\\?#]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://([^/\s]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one configuration. ``names`` are the host names by which we may be addressed, in lower case."""

    access: Access
    names: frozenset[str]

    @classmethod
    def of(cls, config: Config) -> Guard:
        names = ("localhost", config.hostname, *config.health_check_allowed_hosts)
        access = Access(config.security.allow_local_only, config.security.allowed_networks)
        return cls(access, frozenset(_name(name) for name in names))

    def admits(self, peer: str) -> bool:
        """Whether a peer with this IP address may ask anything at all."""
        return self.access.admits(peer)

    def objection(self, host: str | None, origin: str) -> str:
        """Why a request with this Host and Origin is refused; empty when it is not.

        No Host at all comes from an HTTP/1.0 probe, never from a browser; an empty ``origin`` is an absent one.
        """
        if host is not None and not self._knows(host):
            return "this Host is not served here; to allow it, add its name to healthCheckAllowedHosts"
        if origin and not _is_same(origin, host):
            return "requests from pages of another origin are refused"
        return ""

    def _knows(self, host: str) -> bool:
        match = _AUTHORITY.fullmatch(host)
        if match is None:
            return False
        name = _name(match[1])
        return name in self.names or _is_ip(name)


def _name(text: str) -> str:
    return text.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str | None) -> bool:
    """Whether the page came from the very server that is asked (RFC 6454); ``null`` is nobody's page."""
    match = _ORIGIN.fullmatch(origin)
    if match is None or host is None:
        return False
    default = _DEFAULT_PORTS[match[1].lower()]
    ours, theirs = _AUTHORITY.fullmatch(host), _AUTHORITY.fullmatch(match[2])
    if ours is None or theirs is None:
        return False
    return (ours[1].lower(), ours[2] or default) == (theirs[1].lower(), theirs[2] or default)
