"""Ways that are closed for a while over the whole process: delays that a reply named, spent quotas, domains unserved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.rerouting import DEBUG, Rerouting, attempts, named
from tests.support.relay import Relay, eventually, submit
from tests.support.upstream import Upstream

LATER = "451 4.7.1 busy, try again in 300 seconds"


@pytest.mark.parametrize("step", ["connect", "ehlo", "mail", "data", "dot"])
def test_delay_that_a_reply_names_closes_that_provider_alone(
    rerouting: Rerouting, first: Upstream, second: Upstream, step: str
) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    first.on(step, LATER)
    delayed = relay.send("delayed")
    second.wait_for(1)
    first.on(step)
    following = relay.send("following")
    second.wait_for(2)
    relay.wait_for_line(f"message.finished id={following} delivered=1")
    assert attempts(relay, delayed) == ["first", "second"]
    assert attempts(relay, following) == ["second"]
    relay.http("/admin/retry-failed", "POST")  # someone knows better
    relay.send("through the first again")
    first.wait_for(1)


def test_delay_at_a_recipient_concerns_that_recipient_alone(rerouting: Rerouting, first: Upstream, second: Upstream) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    first.on("rcpt", {"grey@example.org": "450 4.2.0 greylisted, try again in 300 seconds"})
    relay.send(to=["grey@example.org", "white@example.org"])
    assert second.wait_for(1)[0].recipients == ("grey@example.org",)
    assert first.wait_for(1)[0].recipients == ("white@example.org",)
    relay.send(to="white@example.org")
    first.wait_for(2)


def test_only_provider_with_a_named_delay_keeps_messages_waiting_without_a_round(rerouting: Rerouting, first: Upstream) -> None:
    relay = rerouting.to(named("first", first))
    first.on("mail", LATER)
    parked = relay.send("had its round")
    relay.wait_for_line(f"message.parked id={parked}")
    waiting = relay.send("waits")
    eventually(lambda: relay.health()["queued_emails"] == 1, "one message that waits")
    assert relay.health()["status"] == "degraded"
    assert attempts(relay, waiting) == []
    first.on("mail")
    relay.http("/admin/retry-failed", "POST")
    assert {m.data.split(b"\r\n\r\n")[1] for m in first.wait_for(2)} == {b"had its round\r\n", b"waits\r\n"}
    eventually(lambda: relay.health()["queued_emails"] == 0, "an empty queue")


def test_spent_quota_takes_the_rest_to_the_next_provider_to_the_recipient(
    rerouting: Rerouting, first: Upstream, second: Upstream
) -> None:
    relay = rerouting.to(named("to-the-recipient", first, maxPerHour=4), named("second", second))
    relay.send(to=[f"user{n}@example.org" for n in range(3)])
    first.wait_for(1)
    message_id = relay.send(to=[f"user{n}@example.org" for n in range(5)])
    relay.wait_for_line(f"message.finished id={message_id} delivered=5 failed=0")
    assert [len(m.recipients) for m in first.messages] == [3, 1]
    assert [len(m.recipients) for m in second.messages] == [4]


@pytest.mark.parametrize("quota", ["maxPerHour", "maxPerDay"])
def test_spent_quota_survives_a_restart(tmp_path: Path, first: Upstream, second: Upstream, quota: str) -> None:
    providers = [named("first", first, **{quota: 3}), named("second", second)]
    with Relay(tmp_path, providers) as relay:
        with relay.connect() as client:
            for n in range(5):
                submit(client, f"number {n}")
        first.wait_for(3)
        second.wait_for(2)
        assert relay.terminate() == 0
        relay.start()
        relay.send("after the restart")
        second.wait_for(3)
        assert (len(first.messages), len(second.messages)) == (3, 3)


def test_what_was_not_delivered_does_not_count_against_a_quota(rerouting: Rerouting, first: Upstream, second: Upstream) -> None:
    relay = rerouting.to(named("refunds", first, maxPerHour=1), named("second", second))
    first.on("rcpt", "450 4.2.0 later")
    relay.send()
    second.wait_for(1)
    first.on("rcpt")
    relay.send()
    first.wait_for(1)
    assert (len(first.messages), len(second.messages)) == (1, 1)


def test_every_quota_spent_keeps_messages_waiting_without_a_round_and_health_says_so(tmp_path: Path, first: Upstream) -> None:
    with Relay(tmp_path, [named("first", first, maxPerHour=1)], logging=DEBUG) as relay:
        relay.send()
        first.wait_for(1)
        waiting = [relay.send(f"number {n}") for n in range(3)]
        eventually(lambda: relay.health()["status"] == "degraded", "degraded health")
        assert (relay.health()["queued_emails"], relay.health()["failed_emails"]) == (3, 0)
        assert [provider["closed_by"] for provider in relay.health()["providers"]] == ["quota"]
        assert relay.http("/admin/retry-failed", "POST")[1]["count"] == 0
        relay.configure(forwardProviders=[named("first", first, maxPerHour=10)])
        relay.signal(1)
        first.wait_for(4)
        for message_id in waiting:
            relay.wait_for_line(f"message.finished id={message_id} delivered=1")
            assert attempts(relay, message_id) == ["first"]


def test_recipient_that_no_provider_serves_waits_and_holds_up_nobody(tmp_path: Path, first: Upstream, second: Upstream) -> None:
    served = named("first", first, domains=["example.org", "example.net"])
    with Relay(tmp_path, [served], logging=DEBUG) as relay:
        message_id = relay.send(to=["a@example.org", "b@Example.NET", "c@sub.example.net"])
        [message] = first.wait_for(1)
        assert sorted(message.recipients) == ["a@example.org", "b@Example.NET"]
        alone = relay.send("nobody serves it", "d@elsewhere.test")
        eventually(lambda: relay.metrics()["queued_emails"] + relay.metrics()["parked_emails"] == 2, "two messages that wait")
        assert attempts(relay, alone) == []
        assert "message.finished" not in relay.output
        relay.configure(forwardProviders=[served, named("second", second)])
        relay.signal(1)
        relay.wait_for_line(f"message.finished id={alone} delivered=1 failed=0")
        relay.http("/admin/retry-failed", "POST")
        relay.wait_for_line(f"message.finished id={message_id} delivered=3 failed=0")
        assert sorted(m.recipients for m in second.messages) == [("c@sub.example.net",), ("d@elsewhere.test",)]
