"""Connections to a provider that are kept, gone stale or lost, over the whole process: never a loss, and a duplicate only
where the provider's answer to the content was lost."""

from __future__ import annotations

import pytest

from tests.flows.rerouting import Rerouting, attempts, deliver, named
from tests.support.relay import eventually, submit
from tests.support.upstream import Answer, Behaviour, Disconnect, Upstream


def test_messages_of_one_moment_share_connections(rerouting: Rerouting, first: Upstream) -> None:
    relay = rerouting.to(named("first", first))
    before = first.connections
    with relay.connect() as client:
        for _ in range(50):
            submit(client)
    first.wait_for(50)
    assert first.connections - before <= 10  # half of the threads at most carry messages to one provider


def test_connection_that_the_provider_closed_while_idle_costs_no_attempt(rerouting: Rerouting, first: Upstream) -> None:
    relay = rerouting.to(named("first", first))
    deliver(relay, "one")
    first.hang_up()
    eventually(lambda: first.open_connections == 0, "the end of the connection")
    message_id = deliver(relay, "two")
    assert [m.data[-5:] for m in first.messages] == [b"one\r\n", b"two\r\n"]
    assert attempts(relay, message_id) == ["first"]


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "step by step"])
@pytest.mark.parametrize(
    "answer", [Disconnect(), Disconnect(reset=True), Disconnect("421 4.4.2 idle for too long")], ids=["closed", "reset", "421"]
)
def test_kept_connection_that_dies_at_its_next_use_is_replaced_within_the_attempt(
    rerouting: Rerouting, answer: Answer, pipelining: bool
) -> None:
    extensions = ("PIPELINING", "8BITMIME") if pipelining else ("8BITMIME",)
    with Upstream(Behaviour(extensions)) as first:
        relay = rerouting.to(named("first", first))
        deliver(relay, "one")
        first.on("mail", answer, None)
        message_id = deliver(relay, "two")
        assert [m.data[-5:] for m in first.messages] == [b"one\r\n", b"two\r\n"]
        assert attempts(relay, message_id) == ["first"]


@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_connection_lost_after_the_final_dot_is_tried_again_so_that_nothing_is_lost(
    rerouting: Rerouting, first: Upstream, second: Upstream, kept: bool, reset: bool
) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    if kept:
        deliver(relay, "before")
    first.on("dot", Disconnect(reset=reset), None)
    message_id = deliver(relay, "lost")
    assert attempts(relay, message_id) == ["first", "first"]
    assert [m.data.endswith(b"lost\r\n") for m in first.messages] == [False] * kept + [True]
    assert second.messages == []


def test_duplicate_arises_only_where_the_provider_took_the_message_and_its_answer_was_lost(
    rerouting: Rerouting, first: Upstream
) -> None:
    relay = rerouting.to(named("first", first))
    first.on("dot", Disconnect(accepted=True), None)
    deliver(relay, "twice")
    assert [m.data.endswith(b"twice\r\n") for m in first.messages] == [True, True]
    assert first.messages[0].data == first.messages[1].data


def test_connection_lost_within_the_content_delivers_once(rerouting: Rerouting, first: Upstream) -> None:
    relay = rerouting.to(named("first", first))
    first.on("data", Disconnect("354 go ahead", reset=True), None)
    deliver(relay, "x" * 500_000)
    assert len(first.messages) == 1


def test_refused_transaction_leaves_the_connection_fit_for_the_next(rerouting: Rerouting, first: Upstream) -> None:
    relay = rerouting.to(named("first", first), retry={"attemptsPerProvider": 1})
    first.on("rcpt", {"bad@example.org": "550 5.1.1 no such user"})
    with relay.connect() as client:
        for n in range(6):
            submit(client, f"number {n}", ["bad@example.org"] if n % 2 else ["good@example.org"])
    messages = first.wait_for(3)
    assert {m.recipients for m in messages} == {("good@example.org",)}
    assert {m.data.split(b"\r\n\r\n")[1] for m in messages} == {b"number 0\r\n", b"number 2\r\n", b"number 4\r\n"}


def test_provider_that_takes_few_connections_is_sent_no_more_at_once(rerouting: Rerouting, first: Upstream) -> None:
    relay = rerouting.to(named("first", first, maxConnections=2))
    before = first.connections
    with relay.connect() as client:
        ids = [submit(client, f"number {n}") for n in range(40)]
    assert len(first.wait_for(40)) == 40
    assert first.connections - before <= 2
    assert all(attempts(relay, message_id) in ([], ["first"]) for message_id in ids)
