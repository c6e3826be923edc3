"""What the two processes say to each other: the kinds of values, and an envelope as one of them.

From the listening process: a message that was received whole, counts of rate limits, refusals to count. From the main
one: which messages are durable, and what to do. No threads, no locks, no state.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from mailer.mail.address import Address
from mailer.mail.envelope import Envelope, Options, Recipient
from mailer.spool.store import SpoolError, SpoolFull


class Word:
    """The first member of every value; what follows it stands beside. Plain numbers, since marshal knows no others."""

    # Said by the listening process.
    ARRIVED: Final = 1  # envelope, bytes of the content; or envelope, None, size and checksum of its file in the spool
    USAGE: Final = 2  # list of (name, span, start, count): counts of rate limits, to be kept
    STORED_USAGE: Final = 3  # number, name: asks for the counts that are kept
    REFUSED: Final = 4  # reason: events.SubmissionRefused
    # Said by the main process.
    SETTLED: Final = 10  # list of (id, None) or (id, fault): what became of messages
    LISTEN: Final = 11  # number: begin; the answer is (port, implicit port), or a Failure
    CONFIGURE: Final = 12  # number, pickled Config: the answer is None, or a Failure
    REOPEN: Final = 13  # number: open the log's file anew
    STOP_ACCEPTING: Final = 14  # number
    CLOSE_SESSIONS: Final = 15  # number, seconds: the answer is whether all have ended
    REPORT: Final = 16  # 0, Unix time: a report of our own was stored, to be counted; nobody waits for the answer
    # Said by either.
    ANSWER: Final = 20  # number, what was asked for


Failure = tuple[str, str, int]
"""An order that could not be carried out: ``"certificate"`` or ``"listen"``, the text for a person, and the system's error
number or 0."""

Fault = tuple[bool, str]
"""A SpoolError on its way: whether it is for lack of space, and its text."""


def fault_of(error: SpoolError) -> Fault:
    return isinstance(error, SpoolFull), str(error)


def error_of(fault: Fault) -> SpoolError:
    is_full, text = fault
    return SpoolFull(text) if is_full else SpoolError(text)


def envelope_to_value(envelope: Envelope) -> tuple[Any, ...]:
    """A new message's envelope: nothing was tried yet, so a recipient is an address alone."""
    options = envelope.options
    return (
        envelope.id,
        (envelope.sender.local_part, envelope.sender.domain),
        [(r.address.local_part, r.address.domain) for r in envelope.recipients],
        envelope.size,
        envelope.accepted_at,
        (
            options.body, options.smtputf8, options.has_long_lines, options.is_report, options.client, options.login,
            options.dsn, options.require_tls,
        ),
    )


_DSN = 6  # where that stands: as long as there are recipients, and another for each message, so not worth remembering


def envelope_of_value(value: tuple[Any, ...]) -> Envelope:
    message_id, sender, recipients, size, at, options = value
    return Envelope(
        message_id,
        _address(*sender),
        tuple(Recipient(index, _address(*parts), updated_at=at) for index, parts in enumerate(recipients)),
        size,
        at,
        Options(*options) if options[_DSN] else _options(*options),
    )


@functools.lru_cache(1024)
def _address(local_part: str, domain: str) -> Address:
    """Remembered: one application's messages go to few domains and come from fewer senders."""
    return Address(local_part, domain)


@functools.lru_cache(64)
def _options(*values: Any) -> Options:
    return Options(*values)
