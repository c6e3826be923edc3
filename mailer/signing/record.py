"""The DNS record of a key's public half (RFC 6376 3.6.1): what to publish, and whether what is published is that.

No state; never fails. What DNS says is hostile: it is bounded by DNS itself, and parsed here without being believed.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from mailer.signing.keys import PrivateKey

MAX_STRING_BYTES = 255  # of one string in a TXT record (RFC 1035 3.3.14); readers join them (RFC 6376 3.6.2.2)


class State(enum.Enum):
    """How the published record stands to the key."""

    MATCHES = "matches"
    WEAKENED = "weakened"  # it matches, and says something that makes receivers heed it less
    DIFFERS = "differs"
    MISSING = "missing"


@dataclass(frozen=True)
class Comparison:
    """``text`` says to a person what is wrong and what to do; empty where nothing is."""

    state: State
    text: str = ""

    @property
    def verifies(self) -> bool:
        return self.state in (State.MATCHES, State.WEAKENED)


def record_name(domain: str, selector: str) -> str:
    return f"{selector}._domainkey.{domain}"


def record_text(key: PrivateKey) -> str:
    return f"v=DKIM1; k={key.kind}; p={key.public.decode('ascii')}"


def zone_lines(name: str, text: str) -> str:
    """The record as it stands in a zone file, in strings of at most 255 bytes."""
    strings = [f'"{text[at : at + MAX_STRING_BYTES]}"' for at in range(0, len(text), MAX_STRING_BYTES)]
    if len(strings) == 1:
        return f"{name}. IN TXT {strings[0]}"
    return f"{name}. IN TXT (\n" + "".join(f"    {string}\n" for string in strings) + ")"


def compare(published: Sequence[str], key: PrivateKey) -> Comparison:
    """What the TXT records at the key's name mean for it: all of them, each with its strings joined."""
    records = [text for text in published if _tags(text).get("p") is not None]
    if not records:
        return Comparison(State.MISSING, "no DKIM record is published: publish the one of this key")
    if len(records) > 1:  # RFC 6376 3.6.2.2: what a receiver does then is undefined
        return Comparison(State.DIFFERS, f"{len(records)} DKIM records are published: leave the right one alone")
    return _compare(_tags(records[0]), key)


def _compare(tags: dict[str, str], key: PrivateKey) -> Comparison:
    published = "".join(tags["p"].split())
    if tags.get("v", "DKIM1") != "DKIM1":
        return Comparison(State.DIFFERS, f"it begins with v={tags['v'][:20]!a}, so receivers ignore it: publish v=DKIM1")
    if not published:
        return Comparison(State.DIFFERS, "the published key is revoked (p= is empty): publish the key, or rotate")
    if tags.get("k", "rsa") != key.kind:
        return Comparison(State.DIFFERS, f"a key of kind {tags.get('k', 'rsa')[:20]!a} is published, this one is {key.kind}")
    if published != key.public.decode("ascii"):
        return Comparison(State.DIFFERS, "another key is published: publish the record of this one, or put that key in place")
    if "h" in tags and "sha256" not in _list(tags["h"]):
        return Comparison(State.DIFFERS, "its h= does not allow sha256: take h= out")
    if not {"*", "email"} & set(_list(tags.get("s", "*"))):
        return Comparison(State.DIFFERS, "its s= does not allow email: take s= out")
    flags = _list(tags.get("t", ""))
    if "y" in flags:
        return Comparison(State.WEAKENED, "its t=y says that signing is only being tested: take t=y out")
    return Comparison(State.MATCHES)


def _tags(text: str) -> dict[str, str]:
    """The tags of a record (RFC 6376 3.2); empty when it is none."""
    tags: dict[str, str] = {}
    for piece in text.split(";"):
        name, equals, value = piece.partition("=")
        if equals:
            tags.setdefault(name.strip(), value.strip())
        elif piece.strip():
            return {}
    return tags


def _list(value: str) -> list[str]:
    return [item.strip() for item in value.split(":")]
