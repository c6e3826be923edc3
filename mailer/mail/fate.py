"""What a delivery report is to say, as values: of which kind it is, and what became of whom (RFC 3464 2.3.3).

No threads, no locks, nothing that fails.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mailer.mail.address import Address
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope, Recipient


class Kind(enum.Enum):
    """What a report is about. The value stands in the report's id."""

    FAILURE = "failed"
    DELAY = "delayed"
    SUCCESS = "delivered"


class Action(enum.Enum):
    """What became of a recipient (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


class Fate(NamedTuple):
    """One recipient of a report. ``remote``: the host that said so, or empty."""

    recipient: Recipient
    action: Action
    remote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a report is to say. ``envelope`` and ``content`` are the original's, ``at`` and ``until`` Unix time.

    ``sender`` stands in From; ``language`` is ``"en"``, ``"zh"`` or ``"both"``; ``until``: when a delayed message is given up.
    """

    id: str
    kind: Kind
    envelope: Envelope
    content: Content
    fates: Sequence[Fate]
    hostname: str
    sender: Address
    language: str = "en"
    at: float
    until: float = 0.0
