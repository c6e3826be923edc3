"""Many threads at the domains of one hoster while their servers change: no conversation is lost or counted twice."""

from __future__ import annotations

import random

from mailer.config.schema import Config, DirectDeliveryConfig, DnsConfig, DomainConfig
from mailer.events import Hub
from mailer.transport.destination import Destination
from mailer.transport.direct import DirectDelivery, Surroundings
from tests.stress.together import THREADS, many

ROUNDS = 400
NOW = 1_700_000_000.0
LIMIT = 4
DOMAINS = ("a.test", "b.test", "c.test")
SERVERS = ("mx1.hoster.test", "mx.own.test", "mx2.hoster.test")


def delivery() -> DirectDelivery:
    entries = (DomainConfig(mx="*.hoster.test", connections=LIMIT), DomainConfig(domain="*", connections=THREADS))
    config = Config(direct_delivery=DirectDeliveryConfig(domains=entries), dns=DnsConfig(nameservers=("127.0.0.1:9",)))
    return DirectDelivery(config, Hub(), Surroundings(clock=lambda: NOW))


def destination_of(direct: DirectDelivery, domain: str) -> Destination:
    found = direct.transport(domain)
    assert isinstance(found, Destination)
    return found


def test_a_hosters_connections_are_counted_though_domains_move() -> None:
    direct = delivery()
    granted = [0] * THREADS

    def use(number: int) -> None:
        draw = random.Random(number)
        for _ in range(ROUNDS):
            domain = draw.choice(DOMAINS)
            admission = direct.admit(domain, 1, NOW)
            if admission.granted:
                granted[number] += 1
                destination_of(direct, domain)._meet(draw.choice(SERVERS))
                direct.release(domain, admission, NOW)

    many(use)
    assert sum(granted) > ROUNDS
    for domain in DOMAINS:
        destination_of(direct, domain)._meet(SERVERS[0])
        destination_of(direct, domain)._window = LIMIT
    taken = sum(direct.admit(domain, 1, NOW).granted for domain in DOMAINS for _ in range(LIMIT))
    assert taken == LIMIT


def test_domains_are_forgotten_and_begun_with_anew_without_losing_a_conversation() -> None:
    direct = delivery()
    once = [0] * THREADS

    def use(number: int) -> None:
        for turn in range(ROUNDS):
            if number % 2:
                direct._forget(NOW, 0.0, 1)
                continue
            domain = DOMAINS[turn % len(DOMAINS)]
            admission = direct.admit(domain, 1, NOW)
            if admission.granted:
                once[number] += 1
                direct.release(domain, admission, NOW)

    many(use)
    assert sum(once) > 0
    for domain in DOMAINS:
        limit = direct.limit_of(domain)
        assert sum(direct.admit(domain, 1, NOW).granted for _ in range(limit + 1)) == limit
