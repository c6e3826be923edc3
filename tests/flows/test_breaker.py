"""The breaker over the whole process: when it opens, what becomes of messages behind it, and what closes it (spec 4).

Its times (30 s, doubling to 300 s) are tested with a clock of the test's own in tests/transport/test_breaker.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.rerouting import DEBUG, Rerouting, attempts, deliver, named
from tests.support.relay import Relay, eventually, submit
from tests.support.upstream import Disconnect, Stall, Upstream

ONCE = {"attemptsPerProvider": 1}
FAULTS_TO_OPEN = 5


def state(relay: Relay) -> list[tuple[str, str]]:
    """Name and breaker of each provider, as /health tells them."""
    return [(provider["name"], provider["breaker"]) for provider in relay.health()["providers"]]


def break_provider(relay: Relay, upstream: Upstream, messages: int = FAULTS_TO_OPEN) -> list[str]:
    """Let the upstream hang up on every connection, and send so many messages, one after the other."""
    upstream.on("connect", Disconnect())
    upstream.hang_up()
    ids = []
    for _ in range(messages):
        ids.append(relay.send("broken"))
        relay.wait_for_line(f"message.parked id={ids[-1]} owed=1")
    return ids


def test_messages_behind_an_open_breaker_wait_without_a_round_and_all_go_once_it_is_closed(
    rerouting: Rerouting, first: Upstream
) -> None:
    relay = rerouting.to(named("first", first), retry=ONCE)
    tried = break_provider(relay, first)
    assert state(relay) == [("first", "open")]
    seen = first.connections
    waiting = [relay.send("waits", f"user{n}@example.org") for n in range(20)]
    details = relay.health()
    assert (details["status"], details["queued_emails"], details["failed_emails"]) == ("degraded", 20, FAULTS_TO_OPEN)
    assert {p["ID"] for p in relay.parked()} == set(tried)
    assert first.connections == seen, "nobody knocks while it is open"
    first.on("connect")
    status, answer = relay.http("/admin/retry-failed", "POST")
    assert (status, answer["count"]) == (200, FAULTS_TO_OPEN)
    for message_id in tried + waiting:
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
    assert len(first.messages) == FAULTS_TO_OPEN + 20
    for message_id in waiting:
        assert attempts(relay, message_id) == ["first"]
    assert state(relay) == [("first", "closed")]
    eventually(lambda: relay.health()["status"] == "ok", "good health")


def test_waiting_messages_survive_a_kill_and_have_had_no_round(tmp_path: Path, first: Upstream) -> None:
    with Relay(tmp_path, [named("first", first)], retry=ONCE, logging=DEBUG) as relay:
        break_provider(relay, first)
        waiting = relay.send("waits")
        relay.kill()
        first.on("connect")
        relay.start()
        relay.wait_for_line(f"message.finished id={waiting} delivered=1 failed=0")
        assert attempts(relay, waiting) == ["first"]


def test_faults_that_are_not_in_a_row_open_nothing(rerouting: Rerouting, first: Upstream) -> None:
    relay = rerouting.to(named("first", first), retry=ONCE)
    for _ in range(2):
        break_provider(relay, first, FAULTS_TO_OPEN - 1)
        first.on("connect")
        deliver(relay)
    assert state(relay) == [("first", "closed")]


@pytest.mark.parametrize(
    ("step", "reply"),
    [("mail", "550 5.7.1 no"), ("rcpt", "550 5.1.1 no"), ("rcpt", "450 4.2.1 no"), ("data", "451 4.3.0 no"), ("dot", "554 no")],
)
def test_refusals_open_nothing(rerouting: Rerouting, first: Upstream, step: str, reply: str) -> None:
    relay = rerouting.to(named("first", first), retry=ONCE)
    first.on(step, reply)
    for _ in range(FAULTS_TO_OPEN + 1):
        message_id = relay.send()
        relay.wait_for_line(f"message.(finished|parked) id={message_id} ")
    assert state(relay) == [("first", "closed")]


@pytest.mark.parametrize("step", ["connect", "mail", "dot"])
def test_421_at_any_step_counts(rerouting: Rerouting, first: Upstream, step: str) -> None:
    relay = rerouting.to(named("first", first), retry=ONCE)
    first.on(step, Disconnect("421 4.3.2 closing down"))
    for _ in range(FAULTS_TO_OPEN):
        message_id = relay.send()
        relay.wait_for_line(f"message.parked id={message_id} ")
    assert state(relay) == [("first", "open")]


def test_login_check_at_start_does_not_count(tmp_path: Path, first: Upstream) -> None:
    first.on("connect", "554 5.3.2 no service")
    with Relay(tmp_path, [named("first", first)], retry=ONCE, logging=DEBUG) as relay:
        relay.wait_for_line("provider.login_failed name=first")
        break_provider(relay, first, FAULTS_TO_OPEN - 1)
        assert state(relay) == [("first", "closed")]
        break_provider(relay, first, 1)
        assert state(relay) == [("first", "open")]


def test_other_provider_takes_everything_and_nobody_knocks_at_the_broken_one(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    relay = rerouting.to(named("first", first), named("second", second), retry=ONCE)
    first.on("connect", Disconnect())
    for _ in range(FAULTS_TO_OPEN):
        deliver(relay)
    seen = first.connections
    ids = [deliver(relay) for _ in range(5)]
    assert [attempts(relay, message_id) for message_id in ids] == [["second"]] * 5
    assert first.connections == seen
    assert relay.health()["status"] == "ok"


def test_breaker_opened_by_messages_at_once_holds_up_none_that_can_go_elsewhere(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    first.on("connect", Disconnect())
    with relay.connect() as client:
        ids = [submit(client, f"number {n}") for n in range(100)]
    for message_id in ids:
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
    assert len(second.messages) == 100
    assert first.connections < 30
    assert state(relay) == [("first", "open"), ("second", "closed")]


def test_what_waits_for_a_broken_provider_goes_at_once_through_one_that_a_reload_brings(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    relay = rerouting.to(named("first", first), retry=ONCE)
    tried = break_provider(relay, first)
    waiting = relay.send("waits")
    rerouting.to(named("second", second), retry=ONCE)
    for message_id in [waiting, *tried]:
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
    assert (len(first.messages), len(second.messages)) == (0, 1 + len(tried))


def test_provider_that_stalls_is_broken_too(rerouting: Rerouting, first: Upstream, second: Upstream) -> None:
    relay = rerouting.to(named("first", first, timeout=1), named("second", second), retry=ONCE)
    first.on("mail", Stall())
    ids = [relay.send(f"number {n}") for n in range(FAULTS_TO_OPEN)]
    for message_id in ids:
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
    assert state(relay)[0] == ("first", "open")


@pytest.mark.slow
def test_after_half_a_minute_one_message_probes_and_all_the_others_follow_by_themselves(
    rerouting: Rerouting, first: Upstream
) -> None:
    relay = rerouting.to(named("first", first), retry=ONCE)
    tried = break_provider(relay, first)
    seen = first.connections
    waiting = [relay.send("waits") for _ in range(10)]
    first.on("connect")
    first.on("mail", Stall("250 2.1.0 ok"))
    first.wait_until(lambda: "MAIL" in [line[:4] for _, line in first.commands], 60)
    eventually(lambda: state(relay) == [("first", "probing")], "the probe")
    assert first.connections == seen + 1, "one message probes, the others wait for it"
    first.on("mail")
    first.release()
    for message_id in tried + waiting:
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
    assert len(first.messages) == len(tried) + len(waiting)
