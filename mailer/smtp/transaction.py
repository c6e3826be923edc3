"""A message under way, from MAIL to its end: what the client has said of it, and the room held for it.

A value that grows, owned by one session; no threads, no locks.
"""

from __future__ import annotations

from mailer.mail.address import Address
from mailer.mail.dsn import NO_WISH, Dsn, Wish
from mailer.mail.envelope import Envelope, Options, Recipient
from mailer.policy.limits import Reservation
from mailer.smtp.chunks import Chunks
from mailer.smtp.parameters import MailFrom


class Transaction:
    """Sender, parameters and recipients; each recipient once, however often it was named: what was asked first counts.

    ``chunks``: what has come of the content by BDAT, None before the first.
    """

    __slots__ = ("_recipients", "_wishes", "chunks", "mail", "reservation")

    def __init__(self, mail: MailFrom, reservation: Reservation) -> None:
        self.mail = mail
        self.reservation = reservation
        self.chunks: Chunks | None = None
        self._recipients: dict[tuple[str, str], Address] = {}
        self._wishes: list[tuple[str, Wish]] = []

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

    @property
    def dsn(self) -> str:
        """What was asked about delivery reports, as ``Options`` holds it: nearly always nothing."""
        mail = self.mail
        if not (self._wishes or mail.ret or mail.envelope_id):
            return ""
        return Dsn(mail.ret, mail.envelope_id, tuple(self._wishes)).to_text()

    def add(self, recipient: Address, wish: Wish, limit: int) -> bool:
        """Note a recipient; False when there are ``limit`` others already. Domains compare without letter case."""
        recipients = self._recipients
        key = (recipient.local_part, recipient.domain_key)
        if key not in recipients:
            if len(recipients) >= limit:
                return False
            recipients[key] = recipient
            if wish is not NO_WISH:
                self._wishes.append((recipient.text, wish))
        return True

    def envelope(self, message_id: str, size: int, at: float, options: Options) -> Envelope:
        """The envelope of the finished message, accepted at Unix time ``at``."""
        recipients = [Recipient(index, address, updated_at=at) for index, address in enumerate(self._recipients.values())]
        return Envelope(message_id, self.mail.sender, tuple(recipients), size, at, options)
