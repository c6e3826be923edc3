"""The form of a file in ``emails/failed``: a message as JSON, ours or the Go program's, written and read.

``ID``, ``From``, ``To`` (only who is still owed) and ``Data`` (base64) are the Go program's; ``AcceptedAt``, ``Rounds``,
``Options`` and ``Recipients`` (the status of each in ``To``) are what else a message needs to survive a lost database.
``Data`` stands last, so that a large message is written and read in pieces.

No threads, no locks. Reading fails with ``Unreadable`` and nothing else, whatever the bytes are; ``NotNow`` is for others.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from mailer.mail.address import NULL_SENDER, Address, AddressError
from mailer.mail.content import Content
from mailer.mail.dsn import Dsn
from mailer.mail.envelope import Options, Recipient, State
from mailer.mail.outcome import MAX_REPLY_TEXT_CHARS, Reply
from mailer.spool.store import SpoolError, Stored

MOST_RECIPIENTS = 100_000  # a hundred times the default maxRecipients
_MOST_ROUNDS = 1_000_000
_MOST_TEXT_CHARS = 256  # of a name in Options or of a provider: more is no name
_DATA_OPENS = '  "Data": "'
_BASE64_PIECE_BYTES = 57 * 1024  # a multiple of 3, so that the pieces join without padding


T = TypeVar("T")


class Unreadable(SpoolError):
    """The file is no message; the text says why."""


class NotNow(SpoolError):
    """The file cannot be read at the moment, through no fault of its own: something is lacking; the text says what."""


@dataclass(frozen=True, slots=True)
class ParkedFile:
    """A message as its file in ``emails/failed`` has it.

    ``id`` is what the file says, any text or empty. ``recipients`` are those still owed. ``accepted_at`` is None where the
    file has no time of its own.
    """

    id: str
    sender: Address
    recipients: tuple[Recipient, ...]
    content: Content
    accepted_at: float | None = None
    rounds: int = 0
    options: Options = field(default_factory=Options)

    @classmethod
    def of(cls, stored: Stored, content: Content) -> ParkedFile:
        envelope = stored.envelope
        return cls(envelope.id, envelope.sender, envelope.owed, content, envelope.accepted_at, stored.rounds, envelope.options)


@dataclass(frozen=True, slots=True)
class Head:
    """A file's fields but ``Data``."""

    id: str
    sender: Address
    recipients: tuple[Recipient, ...]
    accepted_at: float | None
    rounds: int
    options: Options


def to_pieces(parked: ParkedFile) -> Iterator[bytes]:
    """The file's bytes. Raises OSError when the content cannot be read."""
    head: dict[str, Any] = {
        "ID": parked.id,
        "From": str(parked.sender),
        "To": [str(recipient.address) for recipient in parked.recipients],
    }
    if parked.accepted_at is not None:
        head["AcceptedAt"] = _written_time(parked.accepted_at)
    head["Rounds"] = parked.rounds
    head["Options"] = {
        _OPTION_KEY[option.name]: getattr(parked.options, option.name)
        for option in fields(Options)
        if getattr(parked.options, option.name)
    }
    head["Recipients"] = [_written_recipient(recipient) for recipient in parked.recipients]
    text = json.dumps(head, indent=2, ensure_ascii=True)
    yield f"{text.removesuffix('}').rstrip()},\n{_DATA_OPENS}".encode("ascii")
    rest = b""
    for chunk in parked.content.chunks():
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % 3
        for start in range(0, whole, _BASE64_PIECE_BYTES):
            yield binascii.b2a_base64(data[start : min(start + _BASE64_PIECE_BYTES, whole)], newline=False)
        rest = data[whole:]
    yield binascii.b2a_base64(rest, newline=False) + b'"\n}\n'


def split_large(start: bytes) -> tuple[bytes, int] | None:
    """Of a file that we wrote: its fields as JSON without ``Data``, and where the base64 begins. Else None.

    JSON has no raw newline within a string, so the line that opens ``Data`` in our own form cannot stand in one.
    """
    mark = b"\n" + _DATA_OPENS.encode("ascii")
    at = start.find(mark)
    if at < 0:
        return None
    return start[:at].rstrip().removesuffix(b",") + b"}", at + len(mark)


def parse(data: bytes | str) -> dict[str, Any]:
    """The JSON object with its keys in lower case (the Go program's reader does not tell letter case apart)."""
    try:
        found = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise Unreadable("it is JSON nested too deep for a message") from None
    except ValueError as error:  # also what is no UTF-8, and integers of thousands of digits
        raise Unreadable(f"it is not JSON: {ascii(str(error))[1:200]}") from None
    if not isinstance(found, dict):
        raise Unreadable(f"it is a JSON {_kind(found)} where an object was expected")
    return {key.lower(): value for key, value in found.items()}


def head_of(found: dict[str, Any]) -> Head:
    """The fields of a parsed file. Raises Unreadable, naming the field."""
    to = _value(found, "To", list, [])
    if len(to) > MOST_RECIPIENTS:
        raise Unreadable(f"To has {len(to)} addresses; at most {MOST_RECIPIENTS} are read")
    addresses = list(dict.fromkeys(_address(f"To[{i}]", text) for i, text in enumerate(to)))
    if NULL_SENDER in addresses:
        raise Unreadable("To has an empty address")
    status = {entry.get("address"): entry for entry in _statuses(found)}
    recipients = tuple(_recipient(i, address, status.get(str(address), {})) for i, address in enumerate(addresses))
    options = _options(_value(found, "Options", dict, {}))
    return Head(
        _value(found, "ID", str, ""),
        _address("From", _value(found, "From", str, "")),
        recipients,
        _read_time("AcceptedAt", found.get("acceptedat")),
        min(max(_value(found, "Rounds", int, 0), 0), _MOST_ROUNDS),
        options,
    )


def decode(data: str | bytes) -> bytes:
    """Base64 as the Go program writes it: standard alphabet, padded. Raises Unreadable."""
    try:
        if isinstance(data, str):
            data = data.encode("ascii")
        return binascii.a2b_base64(data, strict_mode=True) if data else b""
    except ValueError as error:
        raise Unreadable(f"Data is not base64: {ascii(str(error))[1:-1]}") from None


_OPTION_KEY = {
    "body": "Body",
    "smtputf8": "SMTPUTF8",
    "has_long_lines": "HasLongLines",
    "is_report": "IsReport",
    "client": "Client",
    "login": "Login",
    "dsn": "DSN",
    "require_tls": "RequireTLS",
}


def _options(found: dict[str, Any]) -> Options:
    found = {key.lower(): value for key, value in found.items()}
    said: dict[str, Any] = {}
    for option in fields(Options):
        key = _OPTION_KEY[option.name]
        value = found.get(key.lower())
        if value is None:
            continue
        if not isinstance(value, type(option.default)):
            raise Unreadable(f"Options.{key} is a {_kind(value)}")
        if option.name == "dsn":  # a text as long as there are recipients
            said[option.name] = Dsn.of_text(str(value)).to_text()
        else:
            said[option.name] = _plain(value) if isinstance(value, str) else value
    if said.get("body", "") not in {"", "7BIT", "8BITMIME"}:
        raise Unreadable("Options.Body is neither 7BIT nor 8BITMIME")
    return Options(**said)


def _statuses(found: dict[str, Any]) -> list[dict[str, Any]]:
    entries = _value(found, "Recipients", list, [])
    return [{key.lower(): value for key, value in entry.items()} for entry in entries if isinstance(entry, dict)]


def _recipient(index: int, address: Address, status: dict[str, Any]) -> Recipient:
    """The status is a courtesy: what of it is no status is left out. ``To`` alone says who is owed."""
    attempts, provider, updated = status.get("attempts"), status.get("provider"), status.get("updatedat")
    try:
        updated_at = _read_time("UpdatedAt", updated) or 0.0
    except Unreadable:
        updated_at = 0.0
    return Recipient(
        index,
        address,
        State.RETRYING,
        min(max(attempts, 0), _MOST_ROUNDS) if isinstance(attempts, int) else 0,
        _plain(provider) if isinstance(provider, str) else "",
        _read_reply(status.get("lastreply")),
        updated_at,
    )


def _read_reply(found: object) -> Reply | None:
    if not isinstance(found, dict):
        return None
    found = {str(key).lower(): value for key, value in found.items()}
    code, enhanced, text = found.get("code"), found.get("enhanced", ""), found.get("text", "")
    if not isinstance(code, int) or not 200 <= code <= 599 or not isinstance(enhanced, str) or not isinstance(text, str):
        return None
    reply = Reply.received(code, f"{enhanced} {text}" if enhanced else text)
    return reply if reply.enhanced == enhanced else Reply.received(code, text)


def _written_recipient(recipient: Recipient) -> dict[str, Any]:
    written: dict[str, Any] = {
        "Address": str(recipient.address),
        "State": State.RETRYING.value,
        "Attempts": recipient.attempts,
    }
    if recipient.provider:
        written["Provider"] = recipient.provider
    if recipient.reply is not None:
        reply = recipient.reply
        written["LastReply"] = {"Code": reply.code, "Enhanced": reply.enhanced, "Text": reply.text[:MAX_REPLY_TEXT_CHARS]}
    if recipient.updated_at:
        written["UpdatedAt"] = _written_time(recipient.updated_at)
    return written


def _written_time(value: float) -> str:
    try:
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # a clock beyond the calendar
        return "1970-01-01T00:00:00Z"


def _read_time(key: str, value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise Unreadable(f"{key} is a {_kind(value)} where a time like 2006-01-02T15:04:05Z was expected")
    try:
        found = datetime.fromisoformat(value)
        seconds = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Unreadable(f"{key} is not a time like 2006-01-02T15:04:05Z") from None
    return seconds if math.isfinite(seconds) else None


def _address(key: str, text: object) -> Address:
    if not isinstance(text, str):
        raise Unreadable(f"{key} is a {_kind(text)} where an address was expected")
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    if not text:
        return NULL_SENDER
    try:
        return Address.parse(text, smtputf8=True)
    except AddressError as error:
        raise Unreadable(f"{key} is not an address: {error}") from None


def _value(found: dict[str, Any], key: str, kind: type[T], default: T) -> T:
    value = found.get(key.lower())
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Unreadable(f"{key} is a {_kind(value)}")
    return value


def _kind(value: object) -> str:
    kinds = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")


def _plain(text: str) -> str:
    """A short text without control characters or lone surrogates, as they are never in a name that we wrote."""
    return "".join(c for c in text[:_MOST_TEXT_CHARS] if c.isprintable())


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
