"""Messages as rows and rows as messages: the only place that knows how a value is written in a column.

No threads, no locks. Fails with ``Unreadable`` (a ValueError) for a row that no version of ours has written.

Rows come out of the database as one JSON array a query, not one by one: every step of SQLite gives up the interpreter
and must win it back, which under load costs more than the query. Times go through it as whole ticks of 2**-22 seconds,
the distance between neighbouring floats at today's Unix times, so that they come back exactly.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from mailer.mail.address import Address
from mailer.mail.envelope import Envelope, Options, Recipient, State
from mailer.mail.outcome import Reply
from mailer.spool.store import Holder, Record, Stored
from mailer.spool.tables import READY, WAITING

PENDING, SENDING, RETRYING, SUCCESS, FAILED = range(5)
FIRST_FINAL = SUCCESS  # states from here on are final
_STATE = {
    PENDING: State.PENDING, SENDING: State.SENDING, RETRYING: State.RETRYING, SUCCESS: State.SUCCESS, FAILED: State.FAILED
}  # fmt: skip
_STATE_NUMBER = {state.value: number for number, state in _STATE.items()}  # by value: a state's own hash is Python code

NO_BODY, BODY_ROW, BODY_FILE = 0, 1, 2
_IN_SPOOL = Holder.SPOOL.value

TICKS_A_SECOND = 4194304  # 2**22
_LARGEST_TIME = 2.0**40  # the year 36812: a hostile file's time must neither overflow nor become NULL
_LARGEST_COUNT = 2**31 - 1

MESSAGE_COLUMNS = (
    "id, sender, lane, state, turn, due_at, rounds, progress, waits_for, holder, body, crc, size, recipients,"
    " is_report, accepted_at, finished_at, options"
)
RECIPIENT_COLUMNS = "idx, local_part, domain, state, attempts, provider, code, enhanced, reply, updated_at"

STORED_AS_JSON = (
    "json_array(seq, id, sender, lane, state, CAST(due_at * 4194304 AS INTEGER), rounds, progress, waits_for, holder,"
    " size, recipients, CAST(accepted_at * 4194304 AS INTEGER), CAST(finished_at * 4194304 AS INTEGER), options)"
)
RECIPIENT_AS_JSON = (
    "json_array(seq, idx, local_part, domain, state, attempts, provider, code, enhanced, reply,"
    " CAST(updated_at * 4194304 AS INTEGER))"
)

Row = tuple[Any, ...]


class Unreadable(ValueError):
    """A row holds what we never wrote: the database is damaged."""


def arrival_row(envelope: Envelope, lane: str, body: int, crc: int, size: int) -> Row:
    """The columns of ``MESSAGE_COLUMNS`` for a message that has just been accepted and is due now."""
    at = envelope.accepted_at
    if not -_LARGEST_TIME <= at <= _LARGEST_TIME:
        at = _time(at) or 0.0
    options, recipients = envelope.options, envelope.recipients
    count = 1 + (recipients[0].index if len(recipients) == 1 else max((r.index for r in recipients), default=-1))
    sender = envelope.sender.text
    if not f"{sender}{lane}".isascii():
        sender, lane = plain_text(sender), plain_text(lane)
    return (
        envelope.id, sender, lane, PENDING, READY, at, 0, "", "", _IN_SPOOL,
        body, crc, size, count, int(options.is_report), at, None, _options_text(options),
    )  # fmt: skip


def message_row(stored: Stored, body: int, crc: int) -> Row:
    """The columns of ``MESSAGE_COLUMNS`` for a message in whatever state."""
    envelope = stored.envelope
    due_at = _time(stored.due_at)
    return (
        envelope.id,
        plain_text(str(envelope.sender)),
        plain_text(stored.lane),
        _state_number(stored.state, stored.rounds),
        turn_of(due_at, envelope.accepted_at),
        due_at,
        _count(stored.rounds),
        plain_text(stored.progress),
        waits_text(stored.waits_for),
        stored.holder.value,
        body,
        crc,
        envelope.size,
        1 + max((r.index for r in envelope.recipients), default=-1),
        int(envelope.options.is_report),
        _time(envelope.accepted_at) or 0.0,
        _time(stored.finished_at),
        _options_text(envelope.options),
    )


def recipient_row(recipient: Recipient) -> Row:
    """The columns of ``RECIPIENT_COLUMNS``. One look at all texts together tells that none needs mending."""
    address, reply, attempts, at = recipient.address, recipient.reply, recipient.attempts, recipient.updated_at
    code, enhanced, text = (0, "", "") if reply is None else (reply.code, reply.enhanced, reply.text)
    is_plain = f"{address.local_part}{address.domain}{recipient.provider}{enhanced}{text}".isascii()
    is_usual = is_plain and 0 <= attempts <= _LARGEST_COUNT and 0 <= code <= _LARGEST_COUNT
    if not (is_usual and -_LARGEST_TIME <= at <= _LARGEST_TIME):
        return _mended_row(recipient)
    number = _STATE_NUMBER[recipient.state._value_]
    if number == SENDING:
        number = _state_number(recipient.state, attempts)
    if reply is None:
        return (recipient.index, address.local_part, address.domain, number, attempts, recipient.provider, None, None, None, at)
    return (
        recipient.index, address.local_part, address.domain, number, attempts, recipient.provider, code, enhanced, text, at
    )  # fmt: skip


def _mended_row(recipient: Recipient) -> Row:
    """A recipient with letters beyond ASCII, or with what a damaged file may say of it."""
    address, reply = recipient.address, recipient.reply
    return (
        recipient.index,
        plain_text(address.local_part),
        plain_text(address.domain),
        _state_number(recipient.state, recipient.attempts),
        _count(recipient.attempts),
        plain_text(recipient.provider),
        None if reply is None else _count(reply.code),
        None if reply is None else plain_text(reply.enhanced),
        None if reply is None else plain_text(reply.text),
        _time(recipient.updated_at) or 0.0,
    )


def change_row(record: Record) -> Row:
    """What a record sets in ``messages``: state, turn, due_at, rounds, progress, waits_for, holder, lane, finished_at."""
    at, rounds, progress, lane = record.at, record.rounds, record.progress, record.lane
    if not (-_LARGEST_TIME <= at <= _LARGEST_TIME and 0 <= rounds <= _LARGEST_COUNT):
        at, rounds = _time(at) or 0.0, _count(rounds)
    progress = plain_text(progress) if progress else ""
    waits_for = waits_text(record.waits_for) if record.waits_for else ""
    lane = plain_text(lane) if lane else lane
    number, holder = _state_number(record.state, rounds), record.holder._value_
    if number >= FIRST_FINAL:
        return (number, None, None, rounds, progress, waits_for, holder, lane, at)
    due_at = _time(at if record.due_at is None else record.due_at)
    return (number, turn_of(due_at, at), due_at, rounds, progress, waits_for, holder, lane, None)


def turn_of(due_at: float | None, now: float) -> int | None:
    if due_at is None:
        return None
    return READY if due_at <= now else WAITING


def waits_text(ways: Sequence[str]) -> str:
    return json.dumps([plain_text(way) for way in ways]) if ways else ""


def as_read(row: Sequence[Any]) -> Row:
    """A row of seq and ``MESSAGE_COLUMNS`` in the form of ``STORED_AS_JSON``. Raises Unreadable."""
    seq, id_, sender, lane, state, _, due, *noted, _, _, size, count, _, accepted, finished, options = row
    try:
        due, accepted, finished = (None if t is None else int(t * TICKS_A_SECOND) for t in (due, accepted, finished))
    except (TypeError, ValueError, OverflowError) as error:
        raise Unreadable(f"a time of message {id_!r} is unreadable") from error
    return (seq, id_, sender, lane, state, due, *noted, size, count, accepted, finished, options)


def stored_of(row: Sequence[Any], recipients: Iterable[Sequence[Any]]) -> Stored:
    """The message of a ``STORED_AS_JSON`` row and its ``RECIPIENT_AS_JSON`` rows. Raises Unreadable."""
    try:
        _, id_, sender, lane, state, due, rounds, progress, waits, holder, size, _, accepted, finished, options = row
        envelope = Envelope(
            id=id_,
            sender=address_of(sender),
            recipients=tuple(sorted((recipient_of(r) for r in recipients), key=lambda r: r.index)),
            size=size,
            accepted_at=accepted / TICKS_A_SECOND,
            options=options_of(options),
        )
        return Stored(
            envelope, lane, _STATE[state], _seconds(due), rounds, progress,
            tuple(json.loads(waits)) if waits else (), Holder(holder), _seconds(finished),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"a row of messages or recipients is unreadable: {str(error)!a}") from error


def recipient_of(row: Sequence[Any]) -> Recipient:
    _, index, local_part, domain, state, attempts, provider, code, enhanced, text, updated = row
    reply = None if code is None else Reply(code, enhanced, text)
    return Recipient(
        index, Address(local_part, domain), _STATE[state], attempts, provider, reply, updated / TICKS_A_SECOND
    )


def address_of(text: str) -> Address:
    """The address that ``str(address)`` wrote. A domain holds ``@`` only in a literal, whose ``[`` is its only one."""
    if not text:
        return Address("", "")
    at = text.rfind("@[") if text.endswith("]") else text.rfind("@")
    if at <= 0:
        raise Unreadable(f"{text!a} is no address")
    return Address(text[:at], text[at + 1 :])


def options_of(text: str) -> Options:
    if not text:
        return Options()
    found = json.loads(text)
    return Options(**{name: found[name] for name in _OPTION_NAMES if name in found})


_COMPACT = json.JSONEncoder(separators=(",", ":"))  # made once: json.dumps would make one for every message
_OPTION_NAMES = tuple(Options.__dataclass_fields__)


def _options_text(options: Options) -> str:
    """Remembered, since one application's messages nearly all have the same; but for what is asked about reports, which is
    as long as there are recipients, and another for each message."""
    return _written(options) if options.dsn else _remembered(options)


@functools.lru_cache(256)
def _remembered(options: Options) -> str:
    return _written(options)


def _written(options: Options) -> str:
    said = {name: value for name in _OPTION_NAMES if (value := getattr(options, name))}
    return _COMPACT.encode(said) if said else ""


def _state_number(state: State, tries: int) -> int:
    """SENDING lives in memory alone: a crash must find what the message was before."""
    if state is State.SENDING:
        return RETRYING if tries else PENDING
    return _STATE_NUMBER[state._value_]


def _seconds(ticks: int | None) -> float | None:
    return None if ticks is None else ticks / TICKS_A_SECOND


def _time(value: float | None) -> float | None:
    if value is None:
        return None
    if math.isnan(value):  # SQLite would store NULL, which means finished
        return 0.0
    return min(max(float(value), -_LARGEST_TIME), _LARGEST_TIME)


def _count(value: int) -> int:
    return min(max(value, 0), _LARGEST_COUNT)


def plain_text(value: str) -> str:
    """``value`` without lone surrogates, which SQLite cannot hold."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
