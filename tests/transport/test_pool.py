"""Kept connections: used again, checked, replaced once, closed in time."""

from __future__ import annotations

import logging
import threading

import pytest

from mailer.mail.outcome import Stage, Verdict
from mailer.transport.pool import IDLE_SECONDS, MESSAGES_A_CONNECTION
from tests.support.upstream import Behaviour, Disconnect, Stall, Upstream
from tests.transport.deliveries import Clock, delivery_to, provider_for


def test_one_connection_serves_many_messages() -> None:
    with Upstream() as upstream:
        provider = provider_for(upstream)
        for _ in range(5):
            assert provider.deliver(delivery_to())[0].is_delivered
        assert [m.connection for m in upstream.wait_for(5)] == [1] * 5
        assert "RSET" not in upstream.verbs()


def test_a_connection_is_reset_after_a_failed_transaction_only() -> None:
    with Upstream() as upstream:
        provider = provider_for(upstream)
        upstream.on("rcpt", "550 5.1.1 no", None)
        provider.deliver(delivery_to())
        provider.deliver(delivery_to())
        provider.deliver(delivery_to())
        assert upstream.verbs().count("RSET") == 1
        assert upstream.connections == 1


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(extensions=())], ids=["pipelining", "steps"])
def test_a_connection_that_died_unnoticed_is_replaced_once(behaviour: Behaviour) -> None:
    """The server closes as soon as it hears MAIL on an idle connection: the message goes over a fresh one."""
    with Upstream(behaviour) as upstream:
        provider = provider_for(upstream)
        provider.deliver(delivery_to())
        for answer in (Disconnect(), Disconnect("421 4.4.2 idle too long"), Disconnect(reset=True)):
            upstream.on("mail", answer, None)
            before = upstream.connections
            assert provider.deliver(delivery_to())[0].is_delivered
            assert upstream.connections == before + 1


def test_a_fresh_connection_that_dies_too_is_not_replaced_again() -> None:
    with Upstream() as upstream:
        provider = provider_for(upstream)
        provider.deliver(delivery_to())
        upstream.on("mail", Disconnect())
        assert provider.deliver(delivery_to())[0].stage is Stage.MAIL
        assert upstream.connections == 2


def test_a_connection_that_the_server_closed_while_idle_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Upstream() as upstream:
        provider = provider_for(upstream)
        provider.deliver(delivery_to())
        upstream.hang_up()
        upstream.wait_until(lambda: upstream.open_connections == 0)
        assert provider.deliver(delivery_to())[0].is_delivered
        assert "stale_connection" not in caplog.text, "it was not even tried"


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(extensions=())], ids=["pipelining", "steps"])
def test_a_message_whose_content_was_sent_is_never_sent_again(behaviour: Behaviour) -> None:
    with Upstream(behaviour) as upstream:
        provider = provider_for(upstream)
        provider.deliver(delivery_to())
        upstream.on("dot", Disconnect(accepted=True), None)
        verdict = provider.deliver(delivery_to())[0]
        assert verdict.in_doubt
        assert len(upstream.transactions) == 2
        assert upstream.connections == 1


@pytest.mark.parametrize("step", ["rcpt", "data"])
def test_a_connection_that_breaks_after_the_server_answered_is_not_stale(step: str) -> None:
    with Upstream(Behaviour(extensions=())) as upstream:
        provider = provider_for(upstream)
        provider.deliver(delivery_to())
        upstream.on(step, Disconnect())
        assert provider.deliver(delivery_to())[0].reply.enhanced == "4.4.2"
        assert upstream.connections == 1


def test_connections_are_closed_after_so_many_messages() -> None:
    with Upstream() as upstream:
        provider = provider_for(upstream)
        for _ in range(MESSAGES_A_CONNECTION + 1):
            provider.deliver(delivery_to())
        messages = upstream.wait_for(MESSAGES_A_CONNECTION + 1)
        assert [m.connection for m in messages] == [1] * MESSAGES_A_CONNECTION + [2]
        upstream.wait_until(lambda: upstream.open_connections == 1)
        assert upstream.verbs(connection=1)[-1] == "QUIT"


def test_connections_are_closed_after_their_idle_time() -> None:
    clock = Clock()
    with Upstream() as upstream:
        provider = provider_for(upstream, clock=clock)
        provider.deliver(delivery_to())
        provider.tend(clock.now + IDLE_SECONDS - 1)
        assert provider.status(clock.now).connections == 1
        provider.tend(clock.now + IDLE_SECONDS)
        assert provider.status(clock.now).connections == 0
        upstream.wait_until(lambda: upstream.open_connections == 0)


def test_connections_are_not_kept_past_close() -> None:
    with Upstream() as upstream:
        provider = provider_for(upstream)
        provider.deliver(delivery_to())
        provider.close()
        upstream.wait_until(lambda: upstream.open_connections == 0)
        assert provider.deliver(delivery_to())[0].is_delivered, "a delivery under way at a reload still ends well"
        upstream.wait_until(lambda: upstream.open_connections == 0)


def test_what_a_server_says_unasked_ends_a_connection() -> None:
    with Upstream() as upstream:
        provider = provider_for(upstream)
        upstream.on("dot", b"250 2.0.0 ok\r\n250 2.0.0 and more\r\n", None)
        assert provider.deliver(delivery_to())[0].is_delivered
        assert provider.deliver(delivery_to())[0].is_delivered
        assert upstream.connections == 2


def test_no_more_than_the_configured_number_are_open() -> None:
    with Upstream() as upstream:
        upstream.on("mail", Stall("250 2.1.0 ok"), None)
        provider = provider_for(upstream, settings={"max_connections": 1})
        results: list[Verdict] = []
        first = threading.Thread(target=lambda: results.append(provider.deliver(delivery_to())[0]))
        first.start()
        upstream.wait_until(lambda: any(line.startswith("MAIL") for _, line in upstream.commands))
        refused = provider.deliver(delivery_to())[0]
        assert (refused.stage, refused.reply.enhanced) == (Stage.LOCAL, "4.3.2")
        upstream.release()
        first.join()
        assert results[0].is_delivered
        assert upstream.connections == 1
