"""Sender addresses as a provider wants them: ``envelopeFrom`` in MAIL, ``headerFrom`` in From (spec 2).

For providers that refuse foreign senders. What becomes of From is in mail/rewrite.py. Immutable; no threads, no locks.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from mailer.config.schema import ProviderConfig
from mailer.mail.address import Address
from mailer.mail.content import Render


@dataclass(frozen=True, slots=True)
class Rewriter:
    """The rewriting of one provider; empty addresses rewrite nothing."""

    envelope_from: Address
    header_from: Address

    @classmethod
    def of(cls, config: ProviderConfig) -> Rewriter | None:
        """The rewriter that a provider asks for, or None. Raises AddressError for what is no address."""
        if not config.envelope_from and not config.header_from:
            return None
        envelope_from, header_from = (
            Address.parse(text, smtputf8=True) if text else Address("", "") for text in (config.envelope_from, config.header_from)
        )
        return cls(envelope_from, header_from)

    def sender(self, sender: Address) -> Address:
        """The envelope sender to use. The null sender stays: a report must never be answered (RFC 5321 4.5.5)."""
        return self.envelope_from if sender and self.envelope_from else sender

    def render(self, render: Render) -> Render:
        return functools.partial(render, header_from=self.header_from) if self.header_from else render
