"""The envelope sender that names the recipient (VERP), so that a bounce without readable fields tells whom it is about.

Functions over values; nothing that fails: what cannot be named leaves the sender as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mailer.mail.address import Address, AddressError
from mailer.mail.envelope import Envelope, Recipient


def with_verp(envelope: Envelope, recipients: Sequence[Recipient]) -> Envelope:
    """The envelope for these recipients: if it is one, the sender names it."""
    if len(recipients) != 1 or not envelope.sender:
        return envelope
    return replace(envelope, sender=verp_sender(envelope.sender, recipients[0].address))


def verp_sender(sender: Address, recipient: Address) -> Address:
    """``local+recipient=domain@senderdomain``; the sender itself where that is no address: too long, or with quotes."""
    try:
        named = f"{sender.local_part}+{recipient.local_part}={recipient.domain_key}@{sender.domain}"
        return Address.parse(named, smtputf8=sender.needs_smtputf8 or recipient.needs_smtputf8)
    except AddressError:
        return sender
