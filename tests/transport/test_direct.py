"""All domains of direct delivery: known as long as they are used, bounded, and taken over into a new configuration."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mailer.config.schema import DomainConfig
from mailer.events import DirectStatus
from mailer.transport import direct as module
from mailer.transport.breaker import FAULTS_TO_OPEN, LONGEST_OPEN_SECONDS
from mailer.transport.destination import FIRST_CONVERSATIONS, Destination
from mailer.transport.direct import FORGET_SECONDS, FULL_WAIT_SECONDS, DirectDelivery
from tests.support.internet import Internet
from tests.support.upstream import Stall
from tests.transport.deliveries import Clock, delivery_to
from tests.transport.domains import admitted, config_for, direct_over, send


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet() as made:
        yield made


def known(direct: DirectDelivery) -> str:
    return repr(direct).partition("destinations=")[2].partition(",")[0]


class TestForgetting:
    def test_a_domain_that_is_not_used_is_begun_with_anew(self, internet: Internet) -> None:
        clock = Clock()
        internet.domain("a.test")
        direct = direct_over(internet, clock=clock)
        send(direct, "b@a.test", now=clock())
        direct.step(clock() + FORGET_SECONDS - 1)
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS + 1
        direct.step(clock() + FORGET_SECONDS)
        assert known(direct) == "0"
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS

    def test_a_domain_with_a_conversation_under_way_is_kept(self, internet: Internet) -> None:
        clock = Clock()
        direct = direct_over(internet, clock=clock)
        admission = admitted(direct, "a.test", now=clock())
        direct.step(clock() + 2 * FORGET_SECONDS)
        assert known(direct) == "1"
        direct.release("a.test", admission, clock())
        direct.step(clock() + 2 * FORGET_SECONDS)
        assert known(direct) == "0"

    def test_a_domain_with_an_open_breaker_is_kept(self, internet: Internet) -> None:
        clock = Clock()
        internet.dead("a.test")
        direct = direct_over(internet, clock=clock)
        for _ in range(FAULTS_TO_OPEN):
            send(direct, "b@a.test", now=clock())
        opens_at = direct.open_at("a.test", clock())
        assert opens_at > clock()
        direct._forget(opens_at - 1, 0.0, 1)
        assert known(direct) == "1"
        direct.step(clock() + FORGET_SECONDS + LONGEST_OPEN_SECONDS)
        assert known(direct) == "0"


    def test_a_forgotten_one_admits_nobody(self, internet: Internet) -> None:
        """Whoever had it in hand at that moment is told to ask again."""
        clock = Clock()
        direct = direct_over(internet, clock=clock)
        destination = direct.transport("a.test")
        assert isinstance(destination, Destination)
        direct.step(clock() + FORGET_SECONDS)
        assert destination.admit(1, clock()) is None
        assert admitted(direct, "a.test", now=clock()).granted == 1


class TestBound:
    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_DESTINATIONS", 3)

    def test_the_longest_unused_domain_makes_room_for_a_new_one(self, internet: Internet) -> None:
        clock = Clock()
        for name in "abcd":
            internet.domain(f"{name}.test")
        direct = direct_over(internet, clock=clock)
        for name in "abcad":
            send(direct, f"x@{name}.test", now=clock())
            clock.now += 1
        assert known(direct) == "3"
        assert [direct.limit_of(f"{name}.test") - FIRST_CONVERSATIONS for name in "abcd"] == [2, 0, 1, 1]
        direct.close()

    def test_a_further_domain_waits_while_all_are_in_use(self, internet: Internet) -> None:
        clock = Clock()
        direct = direct_over(internet, clock=clock)
        held = [admitted(direct, f"{name}.test", now=clock()) for name in "abc"]
        refused = direct.admit("d.test", 1, clock())
        assert (refused.granted, refused.closed_until, refused.why) == (0, clock() + FULL_WAIT_SECONDS, "busy")
        direct.release("a.test", held[0], clock())
        admitted(direct, "d.test", now=clock())
        assert known(direct) == "3"

    def test_kept_connections_are_few_however_many_domains_there_are(
        self, internet: Internet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_KEPT", 2)
        servers = [internet.domain(f"{name}.test")[0] for name in "abc"]
        direct = direct_over(internet)
        for name in "abc":
            send(direct, f"x@{name}.test")
        servers[0].wait_until(lambda: servers[0].open_connections == 0)
        assert [server.open_connections for server in servers[1:]] == [1, 1]
        direct.close()


class TestConfiguration:
    def test_a_new_one_is_followed_from_the_next_attempt_on(self, internet: Internet) -> None:
        [server] = internet.domain("a.test")
        direct = direct_over(internet)
        for _ in range(5):
            send(direct, "b@a.test")
        direct.configure(config_for(internet, DomainConfig(domain="a.test", connections=3), ehlo_domain="new.mailer.test"))
        server.wait_until(lambda: server.open_connections == 0)
        send(direct, "b@a.test")
        assert direct.limit_of("a.test") == 3
        assert [line for _, line in server.commands if line.startswith("ehlo")][-1] == "ehlo new.mailer.test"
        direct.close()

    def test_a_conversation_begun_before_it_serves_its_message_alone(self, internet: Internet) -> None:
        [server] = internet.domain("a.test")
        server.on("dot", Stall("250 2.0.0 taken"), None)
        direct = direct_over(internet)
        sender = threading.Thread(target=send, args=(direct, "b@a.test"))
        sender.start()
        server.wait_until(lambda: "DATA" in server.verbs())
        direct.configure(config_for(internet, ehlo_domain="new.mailer.test"))
        server.release()
        sender.join()
        assert send(direct, "b@a.test")[0].is_delivered
        assert [message.connection for message in server.messages] == [1, 2]
        direct.close()

    def test_keeps_breakers_and_windows(self, internet: Internet) -> None:
        clock = Clock()
        internet.domain("a.test")
        internet.dead("dead.test")
        direct = direct_over(internet, clock=clock)
        for _ in range(FAULTS_TO_OPEN):
            send(direct, "b@dead.test", now=clock())
        send(direct, "b@a.test", now=clock())
        direct.configure(config_for(internet, ipv4_only=True))
        assert direct.open_at("dead.test", clock()) > clock()
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS + 1
        direct.close()

    def test_forgets_what_dns_said(self, internet: Internet) -> None:
        direct = direct_over(internet)
        assert send(direct, "b@late.test")[0].reply.enhanced == "5.1.2"
        internet.domain("late.test")
        assert send(direct, "b@late.test")[0].reply.enhanced == "5.1.2"
        direct.configure(config_for(internet))
        assert send(direct, "b@late.test")[0].is_delivered
        direct.close()


def test_status_counts_domains_closed_ones_and_connections(internet: Internet) -> None:
    clock = Clock()
    internet.domain("a.test")
    internet.dead("dead.test")
    direct = direct_over(internet, clock=clock)
    assert direct.status(clock()) == DirectStatus(0, 0, 0)
    send(direct, "b@a.test", now=clock())
    for _ in range(FAULTS_TO_OPEN):
        send(direct, "b@dead.test", now=clock())
    assert direct.status(clock()) == DirectStatus(domains=2, closed=1, connections=1)
    direct.close()


def test_close_lets_a_delivery_end_and_keeps_nothing(internet: Internet) -> None:
    [server] = internet.domain("a.test")
    direct = direct_over(internet)
    admitted(direct, "a.test")
    direct.close()
    assert direct.transport("a.test").deliver(delivery_to("b@a.test"))[0].is_delivered
    server.wait_until(lambda: server.open_connections == 0)


def test_transport_is_named_after_its_domain(internet: Internet) -> None:
    assert direct_over(internet).transport("a.test").name == "direct:a.test"
