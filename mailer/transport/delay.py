"""The delay that a reply names: "try again in 300 seconds", "retry in 5 minutes", "wait 1 hour".

A conservative grammar: only in 4xx replies, only a word that asks to come back, then only words that lead to a number,
then the number and its unit. What does not fit names no delay; rates ("100 messages per hour") never do.
"""

from __future__ import annotations

import re

from mailer.mail.outcome import Reply

MAX_DELAY_SECONDS = 86400.0
"""A day: whoever asks for more is asked again tomorrow."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DELAY = re.compile(
    r"\b(?:try(?:ing)?(?:\s+again)?|retry(?:ing)?|wait|come\s+back|again|resend|reconnect|resume|greylist(?:ed|ing)|retry-after:)"
    r"(?:\s+(?:again|later|please|in|after|for|at|least|about|approximately|another|the|next|sending|connecting|until))*"
    r"\s+(?P<count>\d{1,6})\s*"
    r"(?P<unit>seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)\b",
    re.IGNORECASE,
)


def named_delay(reply: Reply) -> float | None:
    """Seconds the server asks to stay away, at most a day; None when it names no delay."""
    if not reply.is_transient:
        return None
    found = _DELAY.search(reply.text.replace("\n", " "))
    if found is None:
        return None
    seconds = int(found["count"]) * _UNITS[found["unit"][0].lower()]
    return min(seconds, MAX_DELAY_SECONDS) or None
