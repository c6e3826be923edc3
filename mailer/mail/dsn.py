"""What the client asked about delivery reports: the DSN extension's parameters as values (RFC 3461).

No threads, no locks, nothing that fails; ``xtext`` says what the texts may hold. Recipients are named by their address,
since their place in the envelope changes when a file in ``emails/failed`` is edited. ``Options.dsn`` holds all of it as
text, and is empty for nearly every message.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from mailer.mail.xtext import is_envelope_id, is_original, notify_of


class Wish(NamedTuple):
    """What was asked for one recipient. ``notify`` is empty, ``"NEVER"``, or some of SUCCESS, FAILURE and DELAY joined by
    commas (RFC 3461 4.1); ``original``: ORCPT as it came, ``rfc822;xtext``, or empty (4.2)."""

    notify: str = ""
    original: str = ""

    @property
    def wants_failure(self) -> bool:
        """Unless told otherwise, the sender hears of a failure (RFC 3461 4.1)."""
        return not self.notify or "FAILURE" in self.notify

    @property
    def wants_delay(self) -> bool:
        """Nothing said leaves it to us (RFC 3461 4.1): we warn."""
        return not self.notify or "DELAY" in self.notify

    @property
    def wants_success(self) -> bool:
        return "SUCCESS" in self.notify


NO_WISH = Wish()


class Dsn(NamedTuple):
    """What was asked for a message. ``ret`` is ``"FULL"``, ``"HDRS"`` or empty (RFC 3461 4.3); ``envelope_id``: ENVID as it
    came, in xtext, or empty (4.4); ``wishes`` by the recipient's address as text."""

    ret: str = ""
    envelope_id: str = ""
    wishes: tuple[tuple[str, Wish], ...] = ()

    def wish(self, address: str) -> Wish:
        """For the recipient with that address."""
        return next((wish for to, wish in self.wishes if to == address), NO_WISH)

    def to_text(self) -> str:
        """As JSON; empty when nothing was asked."""
        if self == Dsn():
            return ""
        return json.dumps([self.ret, self.envelope_id, dict(self.wishes)], separators=(",", ":"))

    @classmethod
    def of_text(cls, text: str) -> Dsn:
        """What ``to_text`` wrote. What cannot be read, or could not have been said to us, was asked by nobody: a hand has
        been at the file, and what it wrote goes into commands and reports."""
        try:
            ret, envelope_id, wishes = json.loads(text) if text else ("", "", {})
            return cls(
                ret if ret in ("FULL", "HDRS") else "",
                envelope_id if is_envelope_id(envelope_id) else "",
                tuple((to, _checked(*wish)) for to, wish in wishes.items()),
            )
        except (ValueError, TypeError, AttributeError, RecursionError):
            return cls()


def _checked(notify: str, original: str) -> Wish:
    return Wish(notify_of(notify), original if is_original(original) else "")
