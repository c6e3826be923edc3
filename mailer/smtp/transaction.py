"""A message under way, from MAIL to the end of DATA: what the client has said of it, and the room held for it.

A value that grows, owned by one session; no threads, no locks.
"""

from __future__ import annotations

from mailer.mail.address import Address
from mailer.mail.envelope import Envelope, Options, Recipient
from mailer.policy.limits import Reservation
from mailer.smtp.parameters import MailFrom


class Transaction:
    """Sender, parameters and recipients; each recipient once, however often it was named."""

    __slots__ = ("_recipients", "mail", "reservation")

    def __init__(self, mail: MailFrom, reservation: Reservation) -> None:
        self.mail = mail
        self.reservation = reservation
        self._recipients: dict[tuple[str, str], Address] = {}

    def __repr__(self) -> str:
        return f"Transaction(from={self.mail.sender!s}, recipients={len(self._recipients)})"

    @property
    def has_recipients(self) -> bool:
        return bool(self._recipients)

    @property
    def only_recipient(self) -> Address | None:
        """The recipient where there is exactly one: no trace of a message may name others to it."""
        if len(self._recipients) != 1:
            return None
        [recipient] = self._recipients.values()
        return recipient

    def add(self, recipient: Address, limit: int) -> bool:
        """Note a recipient; False when there are ``limit`` others already. Domains compare without letter case."""
        recipients = self._recipients
        key = (recipient.local_part, recipient.domain_key)
        if key not in recipients:
            if len(recipients) >= limit:
                return False
            recipients[key] = recipient
        return True

    def envelope(self, message_id: str, size: int, at: float, options: Options) -> Envelope:
        """The envelope of the finished message, accepted at Unix time ``at``."""
        recipients = [Recipient(index, address, updated_at=at) for index, address in enumerate(self._recipients.values())]
        return Envelope(message_id, self.mail.sender, tuple(recipients), size, at, options)
