"""One pass over the servers of a domain: which answers end it, which lead to the next server, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from mailer.config.schema import DomainConfig
from mailer.mail.outcome import Reply, Stage
from tests.support.internet import Internet
from tests.support.upstream import EXTENSIONS, Answer, Behaviour, Disconnect, Stall
from tests.transport.deliveries import BODY, delivery_to
from tests.transport.domains import direct_over, send


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet() as made:
        yield made


def test_mail_goes_to_the_preferred_server_with_the_name_that_is_ours(internet: Internet) -> None:
    first, second = internet.domain("a.test", 2)
    direct = direct_over(internet, ehlo_domain="out.mailer.test")
    verdicts = send(direct, "b@a.test", "c@a.test")
    [message] = first.wait_for(1)
    assert (message.recipients, message.data) == (("b@a.test", "c@a.test"), BODY)
    assert all(verdict.is_delivered for verdict in verdicts.values())
    assert first.commands[0] == (1, "ehlo out.mailer.test")
    assert second.connections == 0
    direct.close()


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("connect", Disconnect()),
        ("connect", "421 4.3.2 not now"),
        ("connect", "450 4.7.1 who are you"),
        ("connect", "554 5.7.1 no service for you"),
        ("connect", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("ehlo", "451 4.3.0 busy"),
        ("ehlo", "550 5.7.1 bad name"),
        ("mail", "451 4.3.0 busy"),
        ("mail", "421 4.7.0 slow down"),
        ("mail", Disconnect()),
        ("rcpt", Disconnect("421 4.3.2 closing")),
        ("data", Disconnect("421 4.3.2 closing")),
        ("data", Disconnect()),
    ],
)
def test_the_next_server_is_asked_where_one_cannot_be_had(internet: Internet, step: str, answer: Answer) -> None:
    first, second = internet.domain("a.test", 2)
    first.on(step, answer)
    direct = direct_over(internet)
    assert send(direct, "b@a.test")[0].is_delivered
    assert len(second.wait_for(1)) == 1
    assert first.messages == []
    direct.close()


@pytest.mark.parametrize(
    ("step", "answer", "stage"),
    [
        ("mail", "550 5.7.1 we do not like you", Stage.MAIL),
        ("rcpt", "550 5.1.1 no such user", Stage.RCPT),
        ("rcpt", "450 4.7.1 greylisted", Stage.RCPT),
        ("data", "554 5.7.1 no", Stage.DATA),
        ("data", "451 4.3.0 later", Stage.DATA),
        ("dot", "554 5.6.0 spam", Stage.DATA),
        ("dot", "451 4.3.0 later", Stage.DATA),
    ],
)
def test_an_answer_holds_for_all_servers(internet: Internet, step: str, answer: str, stage: Stage) -> None:
    first, second = internet.domain("a.test", 2)
    first.on(step, answer)
    verdict = send(direct_over(internet), "b@a.test")[0]
    assert (verdict.stage, str(verdict.reply)) == (stage, answer)
    assert second.connections == 0


def test_a_message_that_may_have_arrived_is_not_given_to_the_next_server(internet: Internet) -> None:
    first, second = internet.domain("a.test", 2)
    first.on("dot", Disconnect(accepted=True))
    assert send(direct_over(internet), "b@a.test")[0].in_doubt
    assert second.connections == 0


def test_a_refused_recipient_is_not_tried_elsewhere_and_the_others_are_delivered(internet: Internet) -> None:
    first, second = internet.domain("a.test", 2)
    first.on("rcpt", {"b@a.test": "550 5.1.1 no such user"})
    verdicts = send(direct_over(internet), "b@a.test", "c@a.test")
    assert [verdict.is_delivered for verdict in verdicts.values()] == [False, True]
    assert second.connections == 0


def test_the_last_server_has_the_last_word(internet: Internet) -> None:
    first, second = internet.domain("a.test", 2)
    first.on("connect", Disconnect())
    second.on("mail", "451 4.3.0 busy")
    assert send(direct_over(internet), "b@a.test", "c@a.test")[1].reply == Reply(451, "4.3.0", "busy")


def test_a_refused_connection_is_ours_to_put_into_words(internet: Internet) -> None:
    internet.dead("a.test")
    verdict = send(direct_over(internet), "b@a.test")[0]
    assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.CONNECT, 451, "4.4.1")


@pytest.mark.parametrize(
    ("records", "stage", "code", "enhanced"),
    [
        ({"MX": "0 ."}, Stage.RCPT, 556, "5.1.10"),
        ({}, Stage.RCPT, 550, "5.1.2"),
        ({"MX": "10 mx.gone.test"}, Stage.CONNECT, 550, "5.4.4"),
    ],
)
def test_a_domain_without_servers_is_the_same_for_all(
    internet: Internet, records: dict[str, str], stage: Stage, code: int, enhanced: str
) -> None:
    for kind, data in records.items():
        internet.dns.add("a.test", kind, data)
    verdicts = send(direct_over(internet), "b@a.test", "c@a.test")
    assert {(v.stage, v.reply.code, v.reply.enhanced) for v in verdicts.values()} == {(stage, code, enhanced)}
    assert len(verdicts) == 2


def test_dns_in_trouble_is_a_temporary_fault_of_the_connection(internet: Internet) -> None:
    internet.domain("a.test")
    internet.dns.refuse("a.test")
    verdict = send(direct_over(internet), "b@a.test")[0]
    assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.CONNECT, 451, "4.4.3")


def test_a_private_address_is_passed_over_unless_it_is_allowed(internet: Internet) -> None:
    [server] = internet.domain("a.test")
    verdict = send(direct_over(internet, allow_private=False), "b@a.test")[0]
    assert (verdict.stage, verdict.reply.enhanced) == (Stage.CONNECT, "5.4.4")
    assert server.connections == 0


def test_an_address_literal_needs_no_dns(internet: Internet) -> None:
    [server] = internet.domain("a.test")
    assert send(direct_over(internet), f"b@[{server.host}]")[0].is_delivered
    assert internet.dns.asked == []


def test_a_server_that_stalls_leaves_no_time_for_another_once_the_deadline_has_come(internet: Internet) -> None:
    first, second = internet.domain("a.test", 2)
    first.on("ehlo", Stall())
    direct = direct_over(internet)
    verdict = send(direct, delivery=delivery_to("b@a.test", seconds=0.5))[0]
    assert (verdict.stage, verdict.reply.enhanced) == (Stage.EHLO, "4.4.2")
    assert second.connections == 0


class Noting:
    """A watch that notes what it is asked, among what the servers heard."""

    def __init__(self, may_begin: bool = True) -> None:
        self.asked: list[str] = []
        self._may_begin = may_begin

    def dialing(self) -> None:
        self.asked.append("dialing")

    def begin(self) -> bool:
        self.asked.append("begin")
        return self._may_begin


def test_the_watch_hears_of_every_wait_and_of_every_beginning(internet: Internet) -> None:
    first, _ = internet.domain("a.test", 2)
    first.on("mail", "421 4.3.2 busy")
    direct, watch = direct_over(internet), Noting()
    assert send(direct, delivery=delivery_to("b@a.test")._replace(watch=watch))[0].is_delivered
    assert watch.asked == ["dialing", "begin", "dialing", "begin"]
    watch.asked.clear()
    assert send(direct, delivery=delivery_to("b@a.test")._replace(watch=watch))[0].is_delivered
    assert watch.asked == ["begin"], "over the kept connection there is nothing to wait for"
    direct.close()


def test_without_leave_to_begin_no_server_hears_of_the_message(internet: Internet) -> None:
    first, second = internet.domain("a.test", 2)
    verdict = send(direct_over(internet), delivery=delivery_to("b@a.test")._replace(watch=Noting(False)))[0]
    assert (verdict.stage, verdict.reply.enhanced) == (Stage.LOCAL, "4.3.2")
    assert "MAIL" not in first.verbs()
    assert second.connections == 0


def test_an_attempt_is_one_line_and_each_server_passed_over_another(internet: Internet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = internet.domain("a.test", 2)
    first.on("connect", "421 4.3.2 go away")
    send(direct_over(internet), "b@a.test")
    passed_over, attempt = [line for line in caplog.messages if line.startswith("delivery.")]
    assert passed_over == (
        f"delivery.mx_passed_over id=0123456789abcdefg domain=a.test mx=mx1.a.test[{first.host}] "
        "reply='421 4.3.2 go away' stage=connect"
    )
    assert attempt.startswith(
        f"delivery.attempt id=0123456789abcdefg domain=a.test mx=mx2.a.test[{second.host}] recipients=1 delivered=1 "
        "reply='250 2.0.0 taken 1' stage=data seconds="
    )
    assert attempt.endswith(" connection=new tls=none")


def test_of_a_server_that_cannot_be_reached_the_name_is_told(internet: Internet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    internet.dead("a.test")
    send(direct_over(internet), "b@a.test")
    [attempt] = [line for line in caplog.messages if line.startswith("delivery.attempt")]
    assert " mx=mx1.a.test recipients=1 delivered=0 reply='451 4.4.1 connection refused' stage=connect " in attempt


def test_the_order_of_servers_is_that_of_their_preference(internet: Internet) -> None:
    servers = internet.domain("a.test", 4)
    for server in servers[:3]:
        server.on("connect", Disconnect())
    assert send(direct_over(internet), "b@a.test")[0].is_delivered
    assert [server.connections for server in servers] == [1, 1, 1, 1]


def test_a_server_that_could_not_be_reached_is_asked_last_from_then_on(internet: Internet) -> None:
    internet.dead("a.test")
    second = internet.server("mx2.a.test")
    internet.dns.add("a.test", "MX", "20 mx2.a.test")
    direct = direct_over(internet, DomainConfig(domain="a.test", messages_per_connection=1))
    watch = Noting()
    for _ in range(3):
        assert send(direct, delivery=delivery_to("b@a.test")._replace(watch=watch))[0].is_delivered
    assert second.connections == 3
    assert watch.asked == ["dialing", "dialing", "begin"] + 2 * ["dialing", "begin"]


def test_a_server_that_is_shunned_is_still_asked_when_the_others_fail(internet: Internet) -> None:
    first, second = internet.domain("a.test", 2)
    first.on("connect", "450 4.3.2 not now", None)
    direct = direct_over(internet, DomainConfig(domain="a.test", messages_per_connection=1))
    send(direct, "b@a.test")
    second.on("mail", "451 4.3.0 later", None)
    for _ in range(2):
        assert send(direct, "b@a.test")[0].is_delivered
    assert [first.connections, second.connections] == [3, 2], "once it was reached, it is the first again"


def test_a_peer_without_pipelining_is_served_as_well(internet: Internet) -> None:
    [server] = internet.domain("a.test", behaviour=Behaviour(extensions=tuple(e for e in EXTENSIONS if e != "PIPELINING")))
    assert send(direct_over(internet), "b@a.test")[0].is_delivered
    assert server.verbs()[:4] == ["EHLO", "MAIL", "RCPT", "DATA"]
