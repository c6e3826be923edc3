"""What a refusal means for each recipient, over the whole process: final, for the next provider, or for later (spec 4)."""

from __future__ import annotations

import pytest

from tests.flows.rerouting import Rerouting, attempts, named
from tests.support.relay import eventually
from tests.support.upstream import Disconnect, Upstream

GOOD, BAD, POLICY, LATER = (f"{name}@example.org" for name in ("good", "bad", "policy", "later"))


@pytest.mark.parametrize("reply", ["550 5.1.1 no such user", "550 no such user", "553 5.1.3 bad address", "501 5.7.1 syntax"])
def test_refused_recipient_is_final_and_asked_of_nobody_else(
    rerouting: Rerouting, first: Upstream, second: Upstream, reply: str
) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    first.on("rcpt", {BAD: reply})
    message_id = relay.send(to=[GOOD, BAD])
    relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=1")
    assert first.wait_for(1)[0].recipients == (GOOD,)
    assert attempts(relay, message_id) == ["first"]


def test_policy_refusal_takes_that_recipient_alone_to_the_next_provider(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    first.on("rcpt", {POLICY: "550 5.7.1 not through here"})
    message_id = relay.send(to=[GOOD, POLICY])
    relay.wait_for_line(f"message.finished id={message_id} delivered=2 failed=0")
    assert [m.recipients for m in first.messages] == [(GOOD,)]
    assert [m.recipients for m in second.messages] == [(POLICY,)]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
def test_what_every_provider_refused_is_failed_at_the_end_of_the_round(
    rerouting: Rerouting, first: Upstream, second: Upstream, step: str
) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    for upstream in (first, second):
        upstream.on(step, "554 5.7.1 no")
    message_id = relay.send()
    relay.wait_for_line(f"message.finished id={message_id} delivered=0 failed=1")
    assert attempts(relay, message_id) == ["first", "second"]
    assert message_id not in [p["ID"] for p in relay.parked()]


@pytest.mark.parametrize("step", ["connect", "ehlo", "auth"])
def test_refusal_by_one_and_a_fault_of_the_other_is_not_final(
    rerouting: Rerouting, first: Upstream, second: Upstream, step: str
) -> None:
    second.behaviour.announce = ("AUTH PLAIN",)
    login = {"username": "app", "password": "any"}
    relay = rerouting.to(named("first", first), named("second", second, **login))
    first.on("mail", "550 5.7.1 no")
    second.on(step, "535 5.7.8 no" if step == "auth" else "554 5.3.2 no")
    message_id = relay.send()
    relay.wait_for_line(f"message.parked id={message_id} owed=1")
    assert attempts(relay, message_id) == ["first", "second"]


def test_refusal_by_one_and_a_closed_breaker_of_the_other_is_not_final(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    relay = rerouting.to(named("first", first), named("second", second), retry={"attemptsPerProvider": 5, "baseDelay": 1})
    second.on("connect", Disconnect())
    first.on("mail", "451 4.3.0 busy")
    relay.send()  # five tries at the second: its breaker opens
    relay.wait_for_line("breaker_open name=second")
    first.on("mail", "550 5.7.1 no")
    message_id = relay.send()
    relay.wait_for_line(f"message.parked id={message_id} owed=1")
    assert attempts(relay, message_id) == ["first"]


def test_refused_data_after_every_recipient_was_refused_says_nothing(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    first.on("rcpt", {LATER: "450 4.2.1 later", BAD: "550 5.1.1 no such user"})
    first.on("data", "554 5.5.1 no valid recipients")
    message_id = relay.send(to=[LATER, BAD])
    relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=1")
    assert attempts(relay, message_id) == ["first", "first", "second"]
    assert [m.recipients for m in second.messages] == [(LATER,)]


def test_each_recipient_of_one_message_goes_its_own_way(rerouting: Rerouting, first: Upstream, second: Upstream) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    first.on("rcpt", {BAD: "550 5.1.1 no", POLICY: "554 5.7.1 no", LATER: "450 4.2.1 later"})
    second.on("rcpt", {LATER: "450 4.2.1 later"})
    message_id = relay.send(to=[GOOD, BAD, POLICY, LATER])
    relay.wait_for_line(f"message.parked id={message_id} owed=1")
    assert [m.recipients for m in first.messages] == [(GOOD,)]
    assert [m.recipients for m in second.messages] == [(POLICY,)]
    eventually(lambda: message_id in [p["ID"] for p in relay.parked()], "the parked file")
    [parked] = [p for p in relay.parked() if p["ID"] == message_id]
    assert parked["To"] == [LATER]
    for upstream in (first, second):
        upstream.on("rcpt")
    relay.http("/admin/retry-failed", "POST")
    relay.wait_for_line(f"message.finished id={message_id} delivered=3 failed=1")
    assert sorted(r for u in (first, second) for m in u.messages for r in m.recipients if r == LATER) == [LATER]


def test_refused_batch_leaves_the_others_alone(rerouting: Rerouting, first: Upstream, second: Upstream) -> None:
    everybody = [f"user{n}@example.org" for n in range(6)]
    relay = rerouting.to(named("first", first), named("second", second), batchSize=2)
    first.on("dot", None, "554 5.6.0 no", None)
    message_id = relay.send(to=everybody)
    relay.wait_for_line(f"message.finished id={message_id} delivered=6 failed=0")
    assert sorted(len(m.recipients) for m in first.messages) == [2, 2]
    assert [len(m.recipients) for m in second.messages] == [2]
    assert sorted(r for u in (first, second) for m in u.messages for r in m.recipients) == everybody
