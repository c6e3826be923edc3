"""Direct delivery over a small internet, for the tests of transport."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mailer.config.schema import Config, DirectDeliveryConfig, DnsConfig, DomainConfig
from mailer.events import Hub
from mailer.mail.outcome import Delivery, Verdict
from mailer.transport.admission import Admission
from mailer.transport.direct import DirectDelivery, Surroundings
from tests.support.internet import Internet
from tests.transport.deliveries import delivery_to

NO_TRUST = Path("/nonexistent")


def config_for(internet: Internet, *domains: DomainConfig, **settings: object) -> Config:
    direct = DirectDeliveryConfig(
        **{"enabled": True, "port": internet.port, "allow_private": True, "domains": domains, **settings}  # type: ignore[arg-type]  # any of its fields
    )
    return Config(
        hostname="mailer.test", direct_delivery=direct, dns=DnsConfig(nameservers=(internet.dns.address,), timeout=2)
    )


def direct_over(
    internet: Internet,
    *domains: DomainConfig,
    clock: Callable[[], float] = time.time,
    hub: Hub | None = None,
    **settings: object,
) -> DirectDelivery:
    surroundings = Surroundings(clock=clock, trust_store=lambda: NO_TRUST)
    return DirectDelivery(config_for(internet, *domains, **settings), hub or Hub(), surroundings)


def send(
    direct: DirectDelivery, *recipients: str, now: float | None = None, delivery: Delivery | None = None
) -> dict[int, Verdict]:
    """Admit and deliver to recipients of one domain, as many as are granted."""
    delivery = delivery or delivery_to(*recipients)
    domain = delivery.recipients[0].address.domain_key
    admission = admitted(direct, domain, len(delivery.recipients), now)
    granted = delivery._replace(recipients=delivery.recipients[: admission.granted])
    return dict(direct.transport(domain).deliver(granted))


def admitted(direct: DirectDelivery, domain: str, wanted: int = 1, now: float | None = None) -> Admission:
    admission = direct.admit(domain, wanted, time.time() if now is None else now)
    assert admission.granted, f"{domain} is closed: {admission}"
    return admission
