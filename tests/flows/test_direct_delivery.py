"""Delivery to the recipients' own servers over the whole process: MX, failover, each recipient's own fate, then providers."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.flows.rerouting import DEBUG, named
from tests.support.certificates import issue, make_ca
from tests.support.internet import Internet
from tests.support.postfix import Postfix, Setup, require
from tests.support.relay import Relay, eventually
from tests.support.upstream import Disconnect, Stall, Upstream


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet() as made:
        yield made


def relay_to(internet: Internet, folder: Path, *providers: Mapping[str, Any], **settings: Any) -> Relay:
    """A relay that delivers directly, over this internet; then over the providers."""
    direct = {"enabled": True, "port": internet.port, "allowPrivate": True, **settings.pop("directDelivery", {})}
    dns = {"nameservers": [internet.dns.address], "timeout": 2}
    return Relay(folder, providers, directDelivery=direct, dns=dns, logging=DEBUG, **settings)


def attempts(relay: Relay, message_id: str, domain: str) -> list[str]:
    """The replies of all attempts at a domain's servers, in order."""
    expression = rf"delivery\.attempt id={message_id} domain={re.escape(domain)} .*?reply=\"?(.*?)\"? stage="
    return re.findall(expression, relay.output)


def switch(relay: Relay, enabled: bool) -> None:
    """Switch direct delivery on or off, by a reload."""
    relay.configure(directDelivery={**relay.settings["directDelivery"], "enabled": enabled})
    since = len(relay.lines)
    relay.signal(signal.SIGHUP)
    relay.wait_for_line("reload.done", since)


def owed(relay: Relay) -> list[str]:
    """The recipients that parked messages still wait for."""
    return sorted(recipient for message in relay.parked() for recipient in message["To"])


def test_one_message_to_several_domains_has_a_fate_in_each(internet: Internet, tmp_path: Path) -> None:
    [good], [mixed], [grey] = (internet.domain(f"{name}.test") for name in ("good", "mixed", "grey"))
    internet.dns.add("null.test", "MX", "0 .")
    mixed.on("rcpt", {"gone@mixed.test": "550 5.1.1 no such user"})
    grey.on("rcpt", "450 4.7.1 greylisted")
    people = ["a@good.test", "b@good.test", "here@mixed.test", "gone@mixed.test", "c@grey.test", "d@null.test", "e@none.test"]
    with relay_to(internet, tmp_path) as relay:
        message_id = relay.send("to all of you", people)
        assert good.wait_for(1)[0].recipients == ("a@good.test", "b@good.test")
        assert mixed.wait_for(1)[0].recipients == ("here@mixed.test",)
        relay.wait_for_line(f"message.parked id={message_id} owed=1")
        eventually(lambda: owed(relay) == ["c@grey.test"], "a parked message for the one who is owed")
        assert attempts(relay, message_id, "null.test") == ["556 5.1.10 null.test accepts no mail (null MX)"]
        assert [reply[:9] for reply in attempts(relay, message_id, "none.test")] == ["550 5.1.2"]
        assert len(attempts(relay, message_id, "good.test")) == len(attempts(relay, message_id, "mixed.test")) == 1
        grey.on("rcpt")
        relay.http("/admin/retry-failed", "POST")
        assert grey.wait_for(1)[0].recipients == ("c@grey.test",)
        relay.wait_for_line(f"message.finished id={message_id} delivered=4 failed=3")
    assert len(good.messages) == len(mixed.messages) == 1


def test_the_next_server_takes_over_within_one_attempt(internet: Internet, tmp_path: Path) -> None:
    first, second, third = internet.domain("a.test", 3)
    first.on("connect", "421 4.3.2 overloaded")
    second.on("mail", "451 4.3.0 later")
    with relay_to(internet, tmp_path) as relay:
        message_id = relay.send("over the third", "b@a.test")
        third.wait_for(1)
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
        passed_over = [line for line in relay.output.splitlines() if f"delivery.mx_passed_over id={message_id}" in line]
        assert [re.search(r"mx=(\S+)\[", line)[1] for line in passed_over] == ["mx1.a.test", "mx2.a.test"]  # type: ignore[index]
        assert len(attempts(relay, message_id, "a.test")) == 1


def test_a_round_makes_as_many_passes_as_configured_and_then_parks(internet: Internet, tmp_path: Path) -> None:
    servers = internet.domain("a.test", 2)
    for server in servers:
        server.on("connect", "450 4.3.2 not now")
    with relay_to(internet, tmp_path, directDelivery={"retryCount": 3}) as relay:
        message_id = relay.send("nobody there", "b@a.test")
        relay.wait_for_line(f"message.parked id={message_id} owed=1")
        assert attempts(relay, message_id, "a.test") == ["450 4.3.2 not now"] * 3
    assert [server.connections for server in servers] == [3, 3]


def test_providers_get_who_is_still_owed_after_direct_delivery(internet: Internet, tmp_path: Path, first: Upstream) -> None:
    [good], [strict], [refusing] = (internet.domain(f"{name}.test") for name in ("good", "strict", "refusing"))
    strict.on("mail", "550 5.7.1 your address is on a list")
    refusing.on("rcpt", "550 5.1.1 no such user")
    internet.dead("dead.test")
    internet.dns.add("null.test", "MX", "0 .")
    people = ["a@good.test", "b@strict.test", "c@refusing.test", "d@dead.test", "e@null.test"]
    with relay_to(internet, tmp_path, named("smarthost", first)) as relay:
        message_id = relay.send("one way or another", people)
        relay.wait_for_line(f"message.finished id={message_id} delivered=3 failed=2")
        assert sorted(r for message in first.messages for r in message.recipients) == ["b@strict.test", "d@dead.test"]
        assert len(attempts(relay, message_id, "strict.test")) == 1, "a refusal is not asked for again"
    assert good.wait_for(1)[0].recipients == ("a@good.test",)


def test_mail_for_a_domain_that_is_this_server_is_not_sent_in_circles(internet: Internet, tmp_path: Path) -> None:
    internet.dns.add("mx.me.test", "A", "127.0.0.1")
    internet.dns.add("me.test", "MX", "10 mx.me.test")
    with relay_to(internet, tmp_path, smtpPort=internet.port) as relay:
        message_id = relay.send("to myself", "b@me.test")
        relay.wait_for_line(f"message.finished id={message_id} delivered=0 failed=1")
        [reply] = attempts(relay, message_id, "me.test")
        assert reply.startswith("554 5.4.6 mail for me.test loops back")


def test_a_server_at_a_private_address_is_refused(internet: Internet, tmp_path: Path, first: Upstream) -> None:
    [inside] = internet.domain("a.test")
    settings = {"directDelivery": {"allowPrivate": False}}
    with relay_to(internet, tmp_path, named("smarthost", first), **settings) as relay:
        message_id = relay.send("outside only", "b@a.test")
        first.wait_for(1)
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
        assert [reply[:9] for reply in attempts(relay, message_id, "a.test")] == ["550 5.4.4"]
    assert inside.connections == 0


def test_a_domain_that_stalls_does_not_hold_up_others(internet: Internet, tmp_path: Path) -> None:
    """With one worker: whoever waits for a server to let it in is no longer counted as one."""
    stalled = [internet.domain(f"s{number}.test")[0] for number in range(2)]
    good = [internet.domain(f"g{number}.test")[0] for number in range(5)]
    for server in stalled:
        server.on("connect", Stall("220 here at last"))
    people = [f"a@s{number}.test" for number in range(2)] + [f"a@g{number}.test" for number in range(5)]
    with relay_to(internet, tmp_path, workerCount=1) as relay:
        message_id = relay.send("all at once", people)
        for server in good:
            server.wait_for(1)
        assert [server.messages for server in stalled] == [[], []]
        for server in stalled:
            server.release()
        relay.wait_for_line(f"message.finished id={message_id} delivered=7 failed=0")


def test_a_server_that_takes_few_recipients_at_a_time_gets_them_in_turns(internet: Internet, tmp_path: Path) -> None:
    [server] = internet.domain("a.test")
    taken: list[str] = []

    def begin(_sender: str) -> None:
        taken.clear()

    def take(recipient: str) -> str | None:
        taken.append(recipient)
        return "452 4.5.3 too many recipients" if len(taken) > 4 else None

    server.on("mail", begin)
    server.on("rcpt", take)
    people = [f"r{number}@a.test" for number in range(30)]
    with relay_to(internet, tmp_path, batchSize=30) as relay:
        message_id = relay.send("to many", people)
        relay.wait_for_line(f"message.finished id={message_id} delivered=30 failed=0")
        assert "message.parked" not in relay.output
    assert sorted(recipient for message in server.messages for recipient in message.recipients) == sorted(people)
    assert len(server.messages) == 8


def test_a_hoster_whose_connections_are_all_in_use_is_waited_for(internet: Internet, tmp_path: Path, first: Upstream) -> None:
    """That is no reason for the next way: it would be over the provider that mail went whenever there is much of it."""
    hoster = internet.server("mx.hoster.test")
    for name in ("a.test", "b.test"):
        internet.dns.add(name, "MX", "10 mx.hoster.test")
    one_at_a_time = {"domains": [{"mx": "*.hoster.test", "connections": 1}]}
    with relay_to(internet, tmp_path, named("smarthost", first), directDelivery=one_at_a_time) as relay:
        for count, name in enumerate(("a.test", "b.test"), 1):
            relay.send("to know the server", f"x@{name}")
            hoster.wait_for(count)
        hoster.on("dot", Stall("250 2.0.0 taken"))
        relay.send("holds the connection", "x@a.test")
        hoster.wait_until(lambda: hoster.verbs().count("DATA") == 3)
        waiting = relay.send("waits for it", "x@b.test")
        relay.wait_for_line(rf"smtp.accepted id={waiting}")
        hoster.release()
        relay.wait_for_line(f"message.finished id={waiting} delivered=1 failed=0")
    assert len(hoster.messages) == 4
    assert first.messages == []


def test_a_message_is_taken_up_again_when_its_domain_can_be_reached(internet: Internet, tmp_path: Path) -> None:
    [server] = internet.domain("a.test")
    server.on("connect", Disconnect())
    with relay_to(internet, tmp_path, directDelivery={"retryCount": 1}) as relay:
        ids = [relay.send(f"number {number}", "b@a.test") for number in range(6)]
        relay.wait_for_line(r"direct.breaker_open name=direct:a\.test seconds=30")
        eventually(lambda: len(relay.parked()) >= 5, "parked messages")
        health = relay.health()
        assert (health["direct"]["domains"], health["direct"]["closed"]) == (1, 1)
        assert "mail is accepted, but no way to deliver it is open" in health["reasons"]
        server.on("connect")
        relay.http("/admin/retry-failed", "POST")
        server.wait_for(6)
        for message_id in ids:
            relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
        assert relay.health()["status"] == "ok"
        text = relay.http("/metrics", headers={"Accept": "text/plain"})[1]
        assert 'mailer_breaker_opened_total{provider="direct"} 1.0' in text
        assert "a.test" not in text


def test_it_is_switched_on_and_off_by_a_reload(internet: Internet, tmp_path: Path, first: Upstream) -> None:
    [server] = internet.domain("a.test")
    with relay_to(internet, tmp_path, named("smarthost", first), directDelivery={"enabled": False}) as relay:
        relay.send("over the provider", "b@a.test")
        first.wait_for(1)
        switch(relay, True)
        relay.send("straight", "b@a.test")
        server.wait_for(1)
        switch(relay, False)
        relay.send("over the provider again", "b@a.test")
        first.wait_for(2)
    assert len(server.messages) == 1


def test_a_real_postfix_is_reached_over_tls(tmp_path: Path) -> None:
    require()
    certificate = issue(make_ca(tmp_path), "mx.real.test")
    with Postfix(Setup(certificate=certificate)) as postfix, Internet(postfix.port) as internet:
        internet.dns.add("mx.real.test", "A", postfix.host)
        internet.dns.add("real.test", "MX", "10 mx.real.test")
        with relay_to(internet, tmp_path) as relay:
            message_id = relay.send("over TLS", ["a@real.test", "b@real.test"])
            arrived = postfix.wait_for_messages(2)
            relay.wait_for_line(f"message.finished id={message_id} delivered=2 failed=0")
            line = relay.wait_for_line(f"delivery.attempt id={message_id} domain=real.test")
    assert re.search(r" mx=mx\.real\.test\[127\.0\.0\.1\] recipients=2 delivered=2 .* connection=new tls=TLSv1\.3", line)
    assert all(b"over TLS" in message and b"ESMTPS" in message for message in arrived)
    assert {re.search(rb"X-Original-To: (\S+)", message)[1] for message in arrived} == {b"a@real.test", b"b@real.test"}  # type: ignore[index]
