"""In which order providers are tried, and what each is sent, over the whole process: priority, weight, rewritten senders."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.rerouting import Rerouting, attempts, named
from tests.support.relay import submit
from tests.support.upstream import Disconnect, Upstream

MESSAGES = 120
"""Enough that a share of three quarters is told from a half: the chance of a mistake is below one in a million."""


@pytest.fixture
def third() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.mark.parametrize("priority", [{"priority": 0}, {}], ids=["priority 0 everywhere", "no priority"])
def test_providers_go_in_the_order_of_the_list(
    rerouting: Rerouting, first: Upstream, second: Upstream, third: Upstream, priority: dict[str, int]
) -> None:
    upstreams = {"one": first, "two": second, "three": third}
    relay = rerouting.to(*(named(name, upstream, **priority) for name, upstream in upstreams.items()))
    for upstream in (first, second):
        upstream.on("mail", "550 5.7.1 no")
    for _ in range(5):
        message_id = relay.send()
        relay.wait_for_line(f"message.finished id={message_id} delivered=1")
        assert attempts(relay, message_id) == ["one", "two", "three"]


def test_lower_priority_goes_first_wherever_it_stands_in_the_list(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    relay = rerouting.to(named("last", first, priority=20), named("foremost", second, priority=10))
    second.on("mail", "550 5.7.1 no")
    message_id = relay.send()
    first.wait_for(1)
    relay.wait_for_line(f"message.finished id={message_id} delivered=1")
    assert attempts(relay, message_id) == ["foremost", "last"]


def test_weights_share_the_load_among_equal_priorities(
    rerouting: Rerouting, first: Upstream, second: Upstream, third: Upstream
) -> None:
    relay = rerouting.to(
        named("heavy", first, priority=0, weight=9),
        named("light", second, priority=0, weight=3),
        named("reserve", third, priority=1, weight=100),
    )
    with relay.connect() as client:
        ids = [submit(client) for _ in range(MESSAGES)]
    for message_id in ids:
        relay.wait_for_line(f"message.finished id={message_id} delivered=1")
    assert len(first.messages) + len(second.messages) == MESSAGES
    assert 10 <= len(second.messages) < MESSAGES / 2 < len(first.messages)
    assert third.messages == []


def test_weighted_provider_that_fails_is_replaced_by_its_equal_before_the_next_priority(
    rerouting: Rerouting, first: Upstream, second: Upstream, third: Upstream
) -> None:
    relay = rerouting.to(
        named("broken", first, priority=0, weight=5),
        named("equal", second, priority=0, weight=5),
        named("reserve", third, priority=1),
    )
    first.on("connect", Disconnect())
    with relay.connect() as client:
        for _ in range(20):
            submit(client)
    second.wait_for(20)
    assert third.messages == []


def test_envelope_and_header_sender_are_replaced_for_the_provider_that_asks_for_it(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    own = {"envelopeFrom": "bounces@provider.test", "headerFrom": "app@provider.test"}
    relay = rerouting.to(named("own-senders-only", first, **own), named("second", second))
    with relay.connect() as client:
        client.ehlo()
        client.mail("from@example.com")
        client.rcpt("to@example.org")
        client.data(b"From: =?utf-8?q?J=C3=BCrgen?= <from@example.com>\r\nSender: x@example.com\r\nSubject: test\r\n\r\nbody\r\n")
    [message] = first.wait_for(1)
    assert message.sender == "bounces@provider.test"
    head, body = message.data.split(b"\r\n\r\n")
    fields = [line for line in head.split(b"\r\n") if line.split(b":")[0] in (b"From", b"Reply-To", b"Sender")]
    assert sorted(fields) == [
        b"From: =?utf-8?q?J=C3=BCrgen?= <app@provider.test>",
        b"Reply-To: =?utf-8?q?J=C3=BCrgen?= <from@example.com>",
    ]
    assert body == b"body\r\n"
    first.on("mail", "550 5.7.1 no")
    relay.send()
    [message] = second.wait_for(1)
    assert message.sender == "from@example.com"
    assert b"From: from@example.com\r\n" in message.data


def test_null_sender_stays_null_where_the_envelope_sender_is_replaced(rerouting: Rerouting, first: Upstream) -> None:
    relay = rerouting.to(named("first", first, envelopeFrom="bounces@provider.test"))
    relay.send(sender="")
    assert first.wait_for(1)[0].sender == ""
