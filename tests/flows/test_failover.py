"""Failover over the whole process: for each kind of fault of a provider, which way the message takes (spec 4)."""

from __future__ import annotations

import pytest

from tests.flows.rerouting import Rerouting, attempts, named
from tests.support.relay import FAST_RETRIES, eventually
from tests.support.upstream import Answer, Behaviour, Disconnect, Login, Stall, Upstream

STEPS = ("connect", "ehlo", "mail", "rcpt", "data", "dot")
TWICE = ["first", "first", "second"]
"""``attemptsPerProvider`` is 2: a temporary error is tried again, then the next provider gets the message."""
AT_ONCE = ["first", "second"]


def expect_way(rerouting: Rerouting, first: Upstream, second: Upstream, way: list[str]) -> None:
    """Send a message: it must be tried in this order, and arrive once, at the second provider."""
    relay = rerouting.relay
    message_id = relay.send("over the second")
    [message] = second.wait_for(1)
    assert message.data.endswith(b"\r\n\r\nover the second\r\n")
    relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
    assert attempts(relay, message_id) == way


def test_refused_connection(rerouting: Rerouting, first: Upstream, second: Upstream) -> None:
    rerouting.to(named("first", first), named("second", second))
    first.close()
    expect_way(rerouting, first, second, TWICE)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("step", STEPS)
def test_disconnect_at_any_step(rerouting: Rerouting, first: Upstream, second: Upstream, step: str, reset: bool) -> None:
    rerouting.to(named("first", first), named("second", second))
    first.on(step, Disconnect(reset=reset))
    expect_way(rerouting, first, second, TWICE)


@pytest.mark.parametrize("step", STEPS)
def test_server_that_is_closing_down_at_any_step(rerouting: Rerouting, first: Upstream, second: Upstream, step: str) -> None:
    rerouting.to(named("first", first), named("second", second))
    first.on(step, Disconnect("421 4.3.2 closing down"))
    expect_way(rerouting, first, second, TWICE)


GARBAGE: dict[str, Answer] = {
    "binary": b"\x00\xff\x80\r\n\r\n",
    "another protocol": b"HTTP/1.1 200 OK\r\n\r\n",
    "no code": "hello",
    "code of four digits": "2500 ok",
    "codes that differ": b"250-a\r\n251 b\r\n",
    "reply without end": b"250-" + b"x" * 2_000_000,
    "lines without end": b"250-x\r\n" * 5000,
    "intermediate reply": "333 go on",
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("step", STEPS)
def test_garbage_at_any_step(rerouting: Rerouting, first: Upstream, second: Upstream, step: str, kind: str) -> None:
    rerouting.to(named("first", first), named("second", second))
    first.on(step, GARBAGE[kind])
    expect_way(rerouting, first, second, TWICE)


def test_stall_at_any_step_holds_the_message_for_the_timeout_alone(rerouting: Rerouting, second: Upstream) -> None:
    stalling = {step: Upstream() for step in STEPS}
    try:
        providers = [named(step, u, domains=[f"{step}.test"], timeout=1) for step, u in stalling.items()]
        relay = rerouting.to(*providers, named("second", second), retry={**FAST_RETRIES, "attemptsPerProvider": 1})
        for step, upstream in stalling.items():
            upstream.on(step, Stall())
        ids = {step: relay.send(f"stalled at {step}", f"to@{step}.test") for step in STEPS}
        messages = second.wait_for(len(STEPS))
        assert {m.recipients[0] for m in messages} == {f"to@{step}.test" for step in STEPS}
        for step, message_id in ids.items():
            relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
            assert attempts(relay, message_id) == [step, "second"]
    finally:
        for upstream in stalling.values():
            upstream.close()


REPLIES: dict[str, tuple[str, str, list[str]]] = {
    "no service": ("connect", "554 5.3.2 no service", AT_ONCE),
    "busy at the greeting": ("connect", "450 4.3.2 busy", TWICE),
    "refused EHLO": ("ehlo", "550 5.7.1 who are you", AT_ONCE),
    "deferred EHLO": ("ehlo", "450 4.7.1 later", TWICE),
    "refused MAIL": ("mail", "550 5.7.1 sender refused", AT_ONCE),
    "deferred MAIL": ("mail", "451 4.3.0 busy", TWICE),
    "policy at RCPT": ("rcpt", "550 5.7.1 relaying denied", AT_ONCE),
    "policy at RCPT with another code": ("rcpt", "554 5.7.606 banned address", AT_ONCE),
    "deferred RCPT": ("rcpt", "450 4.2.1 greylisted", TWICE),
    "refused DATA": ("data", "554 5.5.0 no", AT_ONCE),
    "deferred DATA": ("data", "451 4.3.0 no", TWICE),
    "refused content": ("dot", "554 5.6.0 looks like spam", AT_ONCE),
    "deferred content": ("dot", "452 4.3.1 disk full", TWICE),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_refusal_is_passed_on_at_once_and_a_temporary_error_after_its_tries(
    rerouting: Rerouting, first: Upstream, second: Upstream, kind: str
) -> None:
    step, reply, way = REPLIES[kind]
    rerouting.to(named("first", first), named("second", second))
    first.on(step, reply)
    expect_way(rerouting, first, second, way)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_refused_login_is_passed_on_at_once(rerouting: Rerouting, second: Upstream, mechanism: str) -> None:
    with Upstream(Behaviour(login=Login("app", "right", mechanisms=mechanism))) as first:
        rerouting.to(named("first", first, username="app", password="wrong"), named("second", second))
        expect_way(rerouting, first, second, AT_ONCE)
        assert "MAIL" not in first.verbs()


def test_login_that_cannot_be_checked_now_is_tried_again(rerouting: Rerouting, second: Upstream) -> None:
    with Upstream(Behaviour(login=Login("app", "right"))) as first:
        rerouting.to(named("first", first, username="app", password="right"), named("second", second))
        first.on("auth", "454 4.7.0 no connection to the password database")
        expect_way(rerouting, first, second, TWICE)


def test_temporary_error_that_passes_needs_no_other_provider(rerouting: Rerouting, first: Upstream, second: Upstream) -> None:
    relay = rerouting.to(named("first", first), named("second", second))
    first.on("mail", "451 4.3.0 busy", None)
    message_id = relay.send()
    first.wait_for(1)
    relay.wait_for_line(f"message.finished id={message_id} delivered=1")
    assert attempts(relay, message_id) == ["first", "first"]
    assert second.messages == []


def test_dns_failure_is_temporary(rerouting: Rerouting, second: Upstream) -> None:
    nowhere = {"name": "first", "host": "no-such-host.invalid", "port": 25, "timeout": 2}
    relay = rerouting.to(nowhere, named("second", second))
    message_id = relay.send()
    second.wait_for(1)
    relay.wait_for_line(f"message.finished id={message_id} delivered=1")
    assert attempts(relay, message_id) == TWICE
    only = rerouting.to(nowhere)
    parked = only.send()
    only.wait_for_line(f"message.parked id={parked} owed=1")
    eventually(lambda: [p["ID"] for p in only.parked()] == [parked], "the parked file")
