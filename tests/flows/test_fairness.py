"""Fairness over the whole process: neither one sender's backlog nor a slow or dead provider holds up the rest.

All is shown by order and by counts: nothing here measures time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.backlog import submit_many
from tests.flows.rerouting import named
from tests.support.relay import Relay, eventually
from tests.support.upstream import Disconnect, Stall, Upstream

BACKLOG = 3000
BULK, PERSON = "bulk@example.com", "person@example.com"
FEW = 60
"""Messages of others that may be sent before a person's: those in conversations already, and one turn each. A message
that waited for its place in a line would have thousands before it."""


def place_of(upstream: Upstream, sender: str) -> int:
    """How many messages were accepted before the sender's first."""
    return [message.sender for message in upstream.messages].index(sender)


def hold(upstream: Upstream) -> None:
    """Let nothing through until ``release``."""
    upstream.on("mail", Stall("250 2.1.0 ok"))


def test_large_backlog_of_one_sender_does_not_hold_up_another(tmp_path: Path, first: Upstream) -> None:
    hold(first)
    with Relay(tmp_path, [named("first", first)]) as relay:
        submit_many(relay, BACKLOG, BULK)
        relay.send("urgent", sender=PERSON)
        assert first.messages == []
        first.release()
        first.wait_until(lambda: PERSON in {t.sender for t in first.transactions}, 60)
        assert place_of(first, PERSON) < FEW
        assert len(first.wait_for(BACKLOG + 1, 100)) == BACKLOG + 1


def test_backlog_on_disk_is_taken_up_in_turns_after_a_restart(tmp_path: Path, first: Upstream) -> None:
    hold(first)
    with Relay(tmp_path, [named("first", first)]) as relay:
        submit_many(relay, 2000, BULK)
        relay.send("urgent", sender=PERSON)
        relay.kill()
        relay.start()
        first.release()
        first.wait_until(lambda: PERSON in {t.sender for t in first.transactions}, 60)
        assert place_of(first, PERSON) < FEW


def test_many_senders_with_backlogs_beyond_the_queue_do_not_hold_up_another(tmp_path: Path, first: Upstream) -> None:
    hold(first)
    with Relay(tmp_path, [named("first", first)], queueSize=20) as relay:
        for n in range(6):
            submit_many(relay, 200, f"bulk{n}@example.com")
        relay.send("urgent", sender=PERSON)
        first.release()
        first.wait_until(lambda: PERSON in {t.sender for t in first.transactions}, 60)
        assert place_of(first, PERSON) < FEW
        assert len(first.wait_for(1201, 60)) == 1201


def test_stalled_provider_does_not_hold_up_messages_for_another(tmp_path: Path, first: Upstream, second: Upstream) -> None:
    hold(first)
    providers = [named("first", first, domains=["slow.test"], timeout=100), named("second", second, domains=["fast.test"])]
    with Relay(tmp_path, providers, workerCount=2, queueSize=40) as relay:
        submit_many(relay, 200, BULK, "to@slow.test")
        submit_many(relay, 50, BULK, "to@fast.test")
        second.wait_for(50, 60)
        assert first.messages == []
        # At most half of four times ``workerCount`` threads. The first two stall both workers until others replace them.
        assert 2 <= first.verbs().count("MAIL") <= 4
        first.release()
        assert len(first.wait_for(200, 60)) == 200


def test_dead_provider_does_not_hold_up_messages_for_another(tmp_path: Path, first: Upstream, second: Upstream) -> None:
    first.on("connect", Disconnect())
    providers = [named("first", first, domains=["dead.test"]), named("second", second, domains=["alive.test"])]
    with Relay(tmp_path, providers, workerCount=2, queueSize=40) as relay:
        submit_many(relay, 500, BULK, "to@dead.test")
        submit_many(relay, 100, BULK, "to@alive.test")
        assert len(second.wait_for(100, 60)) == 100
        seen = first.connections
        assert seen < 30, "the breaker keeps the rest away"
        assert relay.health()["queued_emails"] + relay.health()["failed_emails"] >= 500
        first.on("connect")
        relay.http("/admin/retry-failed", "POST")
        assert len(first.wait_for(500, 60)) == 500


@pytest.mark.slow
def test_one_message_with_two_ways_is_not_held_up_by_the_stalled_one_of_another(
    tmp_path: Path, first: Upstream, second: Upstream
) -> None:
    hold(first)
    providers = [named("first", first, domains=["slow.test"], timeout=100), named("second", second, domains=["fast.test"])]
    with Relay(tmp_path, providers, workerCount=1) as relay:
        relay.send(to=["a@fast.test", "a@slow.test", "b@fast.test"])
        assert sorted(second.wait_for(1)[0].recipients) == ["a@fast.test", "b@fast.test"]
        relay.send(to="c@fast.test")
        second.wait_for(2, 60)
        first.release()
        assert first.wait_for(1)[0].recipients == ("a@slow.test",)


@pytest.mark.slow
def test_two_stalled_providers_do_not_hold_up_a_third(tmp_path: Path, first: Upstream, second: Upstream) -> None:
    hold(first)
    hold(second)
    with Upstream() as third:
        providers = [
            named("first", first, domains=["slow.test"], timeout=100),
            named("second", second, domains=["slower.test"], timeout=100),
            named("third", third, domains=["fast.test"]),
        ]
        with Relay(tmp_path, providers, workerCount=2) as relay:
            submit_many(relay, 50, BULK, "to@slow.test")
            submit_many(relay, 50, BULK, "to@slower.test")
            eventually(lambda: first.verbs().count("MAIL") + second.verbs().count("MAIL") >= 4, "stalled conversations")
            relay.send(to="to@fast.test")
            third.wait_for(1, 40)
            assert first.messages == second.messages == []
