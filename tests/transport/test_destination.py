"""A domain as a way: slow start, kept connections, breaker, named delays, and what domains at one hoster share."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mailer.config.schema import DomainConfig
from mailer.events import BreakerChanged, Event, Hub
from mailer.mail.envelope import Options
from mailer.mail.outcome import Stage
from mailer.transport.admission import Admission
from mailer.transport.breaker import FAULTS_TO_OPEN, FIRST_OPEN_SECONDS
from mailer.transport.destination import FIRST_CONVERSATIONS, IDLE_SECONDS
from mailer.transport.manners import BUSY_SECONDS
from tests.support.internet import Internet
from tests.support.upstream import Answer, Disconnect, Stall
from tests.transport.deliveries import Clock, delivery_to
from tests.transport.domains import admitted, direct_over, send


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet() as made:
        yield made


class TestSlowStart:
    def test_begins_with_few_conversations_and_adds_one_for_each_that_goes_well(self, internet: Internet) -> None:
        internet.domain("a.test")
        direct = direct_over(internet)
        told: list[tuple[str, int]] = []
        direct.on_limit_changed = lambda way, limit: told.append((way, limit))
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS
        for _ in range(3):
            send(direct, "b@a.test")
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS + 3
        assert told == [("direct:a.test", FIRST_CONVERSATIONS + n) for n in (1, 2, 3)]
        direct.close()

    def test_ends_at_what_the_manners_allow(self, internet: Internet) -> None:
        internet.domain("a.test")
        direct = direct_over(internet, DomainConfig(domain="a.test", connections=3))
        for _ in range(5):
            send(direct, "b@a.test")
        assert direct.limit_of("a.test") == 3
        direct.close()

    def test_never_begins_with_more_than_the_manners_allow(self, internet: Internet) -> None:
        assert direct_over(internet, DomainConfig(domain="*.test", connections=1)).limit_of("a.test") == 1

    @pytest.mark.parametrize(
        ("step", "answer"),
        [
            ("connect", "421 4.7.0 too many connections"),
            ("connect", Disconnect()),
            ("ehlo", "450 4.7.1 later"),
            ("mail", "451 4.7.1 slow down"),
            ("data", "452 4.3.1 full"),
            ("dot", "450 4.7.28 unusual rate"),
            ("connect", "554 5.7.1 no service for you"),
            ("rcpt", Disconnect()),
        ],
    )
    def test_halves_on_a_fault_and_where_the_server_says_slow_down(self, internet: Internet, step: str, answer: Answer) -> None:
        [server] = internet.domain("a.test")
        direct = direct_over(internet, DomainConfig(domain="a.test", messages_per_connection=1))
        for _ in range(6):
            send(direct, "b@a.test")
        server.on(step, answer)
        limits = [direct.limit_of("a.test")]
        for _ in range(4):
            send(direct, "b@a.test")
            limits.append(direct.limit_of("a.test"))
        assert limits == [8, 4, 2, 1, 1]

    @pytest.mark.parametrize("answer", ["550 5.1.1 no such user", "450 4.7.1 greylisted", "452 4.2.2 mailbox full"])
    def test_is_not_held_up_by_a_refused_recipient(self, internet: Internet, answer: str) -> None:
        [server] = internet.domain("a.test")
        server.on("rcpt", answer)
        direct = direct_over(internet)
        send(direct, "b@a.test")
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS + 1
        direct.close()


class TestAdmission:
    def test_grants_no_more_conversations_than_the_window_has(self, internet: Internet) -> None:
        clock = Clock()
        direct = direct_over(internet, clock=clock)
        first = [admitted(direct, "a.test", now=clock()) for _ in range(FIRST_CONVERSATIONS)]
        assert direct.admit("a.test", 1, clock()) == Admission(0, clock() + BUSY_SECONDS, "busy")
        assert direct.open_at("a.test", clock()) == clock(), "who is busy is not closed"
        direct.release("a.test", first[0], clock())
        admitted(direct, "a.test", now=clock())

    def test_grants_as_many_recipients_as_the_manners_allow(self, internet: Internet) -> None:
        direct = direct_over(internet, DomainConfig(domain="a.test", recipients_per_message=3))
        assert admitted(direct, "a.test", 20).granted == 3
        assert admitted(direct, "b.test", 20).granted == 20

    def test_learns_after_how_many_recipients_the_server_takes_no_more(self, internet: Internet) -> None:
        [server] = internet.domain("a.test")
        server.on("rcpt", None, None, "452 4.5.3 too many recipients")
        direct = direct_over(internet)
        verdicts = send(direct, "b@a.test", "c@a.test", "d@a.test")
        assert [verdicts[index].is_delivered for index in range(3)] == [True, True, False]
        assert verdicts[2].reply.code == 452
        assert admitted(direct, "a.test", 20).granted == 2
        direct.close()

    def test_asks_nothing_of_a_domain_never_seen(self, internet: Internet) -> None:
        direct = direct_over(internet)
        assert direct.open_at("a.test", 5.0) == 5.0
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS
        assert "destinations=0" in repr(direct)


class TestBreaker:
    @pytest.mark.parametrize(
        ("step", "answer"), [("connect", Disconnect()), ("mail", "421 4.3.2 closing"), ("dot", "451 4.7.1 slow down")]
    )
    def test_opens_after_faults_in_a_row_and_lets_one_message_probe(
        self, internet: Internet, step: str, answer: Answer
    ) -> None:
        clock, hub, events = Clock(), Hub(), list[Event]()
        hub.subscribe(events.append)
        [server] = internet.domain("a.test")
        server.on(step, answer)
        direct = direct_over(internet, clock=clock, hub=hub)
        closed: list[str] = []
        direct.on_breaker_closed = closed.append
        for _ in range(FAULTS_TO_OPEN):
            send(direct, "b@a.test", now=clock())
        until = clock() + FIRST_OPEN_SECONDS
        assert direct.admit("a.test", 1, clock()) == Admission(0, until, "breaker")
        assert direct.open_at("a.test", clock()) == until
        assert direct.open_at("other.test", clock()) == clock()
        server.on(step)
        clock.now = until
        assert admitted(direct, "a.test", now=clock()).is_probe
        assert direct.admit("a.test", 1, clock()).why == "breaker"
        assert direct.transport("a.test").deliver(delivery_to("b@a.test"))[0].is_delivered
        assert closed == ["direct:a.test"]
        assert [e.state for e in events if isinstance(e, BreakerChanged)] == ["open", "probing", "closed"]
        direct.close()

    def test_a_probe_that_was_not_made_leaves_its_place_to_the_next(self, internet: Internet) -> None:
        clock = Clock()
        internet.dead("a.test")
        direct = direct_over(internet, clock=clock)
        for _ in range(FAULTS_TO_OPEN):
            send(direct, "b@a.test", now=clock())
        clock.now += FIRST_OPEN_SECONDS
        direct.release("a.test", admitted(direct, "a.test", now=clock()), clock())
        assert admitted(direct, "a.test", now=clock()).is_probe

    def test_the_last_chance_of_a_message_passes_it(self, internet: Internet) -> None:
        clock = Clock()
        internet.dead("a.test")
        direct = direct_over(internet, clock=clock)
        for _ in range(FAULTS_TO_OPEN):
            send(direct, "b@a.test", now=clock())
        assert direct.admit("a.test", 1, clock(), forced=True).granted == 1

    def test_a_domain_that_does_not_exist_is_nobodys_fault(self, internet: Internet) -> None:
        direct = direct_over(internet)
        for _ in range(2 * FAULTS_TO_OPEN):
            assert send(direct, "b@none.test")[0].reply.enhanced == "5.1.2"

    def test_is_closed_by_hand(self, internet: Internet) -> None:
        clock = Clock()
        internet.dead("a.test")
        direct = direct_over(internet, clock=clock)
        for _ in range(FAULTS_TO_OPEN):
            send(direct, "b@a.test", now=clock())
        direct.close_all_breakers()
        assert direct.open_at("a.test", clock()) == clock()


    @pytest.mark.parametrize(("vouches", "stage"), [(True, Stage.TLS), (False, Stage.MAIL)])
    def test_a_message_that_asks_more_of_tls_than_others_says_nothing_about_the_domain(
        self, internet: Internet, vouches: bool, stage: Stage
    ) -> None:
        internet.domain("a.test")
        internet.dns.vouches = vouches
        direct = direct_over(internet)
        for _ in range(FAULTS_TO_OPEN + 1):
            verdicts = send(direct, delivery=delivery_to("b@a.test", options=Options(require_tls=True)))
            assert verdicts[0].stage is stage
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS
        assert send(direct, "b@a.test")[0].is_delivered
        direct.close()


class TestNamedDelay:
    def test_closes_the_domain_for_as_long_as_the_server_says(self, internet: Internet) -> None:
        clock = Clock()
        [server] = internet.domain("a.test")
        server.on("mail", "450 4.7.1 try again in 300 seconds")
        direct = direct_over(internet, clock=clock)
        assert send(direct, "b@a.test", now=clock())[0].closed_for_seconds == 300.0
        assert direct.admit("a.test", 1, clock()) == Admission(0, clock() + 300.0, "delay")
        clock.now += 300
        assert direct.open_at("a.test", clock()) == clock()

    def test_of_one_recipient_closes_nothing(self, internet: Internet) -> None:
        clock = Clock()
        [server] = internet.domain("a.test")
        server.on("rcpt", "450 4.7.1 greylisted, try again in 300 seconds")
        direct = direct_over(internet, clock=clock)
        send(direct, "b@a.test", now=clock())
        assert direct.open_at("a.test", clock()) == clock()
        direct.close()


class TestKeptConnections:
    def test_serve_the_next_message(self, internet: Internet) -> None:
        [server] = internet.domain("a.test")
        direct = direct_over(internet)
        for _ in range(3):
            send(direct, "b@a.test")
        assert (server.connections, len(server.messages)) == (1, 3)
        direct.close()

    def test_are_closed_after_as_many_messages_as_the_manners_allow(self, internet: Internet) -> None:
        [server] = internet.domain("a.test")
        direct = direct_over(internet, DomainConfig(mx="*.a.test", messages_per_connection=2))
        for _ in range(5):
            send(direct, "b@a.test")
        assert [message.connection for message in server.messages] == [1, 1, 2, 2, 3]
        direct.close()

    def test_are_closed_soon_when_idle(self, internet: Internet) -> None:
        clock = Clock()
        [server] = internet.domain("a.test")
        direct = direct_over(internet, clock=clock)
        send(direct, "b@a.test", now=clock())
        direct.step(clock() + IDLE_SECONDS - 1)
        assert server.open_connections == 1
        direct.step(clock() + IDLE_SECONDS)
        server.wait_until(lambda: server.open_connections == 0)
        assert server.verbs()[-1] == "QUIT"

    def test_are_replaced_when_they_died_unnoticed(self, internet: Internet) -> None:
        [server] = internet.domain("a.test")
        direct = direct_over(internet)
        send(direct, "b@a.test")
        server.on("mail", Disconnect("421 4.4.2 idle too long"), None)
        assert send(direct, "b@a.test")[0].is_delivered
        assert server.connections == 2
        assert direct.limit_of("a.test") == FIRST_CONVERSATIONS + 2, "that was no fault of the server's"
        direct.close()

    def test_give_way_to_the_next_server_when_theirs_has_had_enough(self, internet: Internet) -> None:
        first, second = internet.domain("a.test", 2)
        direct = direct_over(internet)
        send(direct, "b@a.test")
        first.on("mail", "452 4.3.1 out of disk")
        assert send(direct, "b@a.test")[0].is_delivered
        assert (first.connections, len(second.messages)) == (1, 1)
        assert first.verbs()[-1] == "QUIT"
        direct.close()

    def test_have_the_last_word_where_there_is_no_other_server(self, internet: Internet) -> None:
        [server] = internet.domain("a.test")
        direct = direct_over(internet)
        send(direct, "b@a.test")
        server.on("mail", "451 4.3.0 later")
        assert str(send(direct, "b@a.test")[0].reply) == "451 4.3.0 later"
        internet.dns.refuse("a.test")
        direct.close_all_breakers()  # and forget DNS
        assert str(send(direct, "b@a.test")[0].reply) == "451 4.3.0 later"
        assert (server.connections, server.open_connections) == (1, 1)
        direct.close()

    def test_are_not_used_for_a_message_that_asks_for_tls_all_the_way(self, internet: Internet) -> None:
        [server] = internet.domain("a.test")
        internet.dns.vouches = True
        direct = direct_over(internet)
        send(direct, "b@a.test")
        send(direct, delivery=delivery_to("b@a.test", options=Options(require_tls=True)))
        assert server.connections == 2
        assert len(server.messages) == 1
        direct.close()


class TestSites:
    HOSTER = DomainConfig(mx="*.hoster.test", connections=3)

    def hosted(self, internet: Internet) -> None:
        internet.server("mx.hoster.test")
        for name in ("a.test", "b.test"):
            internet.dns.add(name, "MX", "10 mx.hoster.test")

    def test_domains_at_one_hoster_share_its_connections_once_their_server_is_known(self, internet: Internet) -> None:
        self.hosted(internet)
        clock = Clock()
        direct = direct_over(internet, self.HOSTER, clock=clock)
        for name in ("a.test", "b.test", "b.test"):
            send(direct, f"x@{name}", now=clock())
        of_a = [admitted(direct, "a.test", now=clock()) for _ in range(2)]
        admitted(direct, "b.test", now=clock())
        assert direct.admit("b.test", 1, clock()).why == "busy", "though its own window would allow it"
        direct.release("a.test", of_a[0], clock())
        admitted(direct, "b.test", now=clock())
        direct.close()

    def test_a_conversation_that_was_begun_before_the_server_was_known_counts(self, internet: Internet) -> None:
        self.hosted(internet)
        clock = Clock()
        direct = direct_over(internet, self.HOSTER, clock=clock)
        send(direct, "x@b.test", now=clock())
        admitted(direct, "a.test", now=clock())  # under way, though it does nothing yet
        send(direct, "x@a.test", now=clock())  # another learns where the domain is
        for _ in range(2):
            admitted(direct, "b.test", now=clock())
        assert direct.admit("b.test", 1, clock()).why == "busy"
        direct.close()

    def test_a_domain_that_moves_takes_its_conversations_with_it(self, internet: Internet) -> None:
        self.hosted(internet)
        clock = Clock()
        direct = direct_over(internet, self.HOSTER, DomainConfig(domain="*", messages_per_connection=1), clock=clock)
        for name in ("a.test", "b.test", "b.test"):
            send(direct, f"x@{name}", now=clock())
        held = [admitted(direct, "a.test", now=clock()) for _ in range(2)]
        internet.dns.remove("a.test", "MX")
        internet.server("mx.own.test")
        internet.dns.add("a.test", "MX", "10 mx.own.test")
        direct.close_all_breakers()  # who knows better than the breakers knows better than the cache
        send(direct, "x@a.test", now=clock())
        for _ in range(3):
            admitted(direct, "b.test", now=clock())
        for admission in held:
            direct.release("a.test", admission, clock())
        assert direct.admit("b.test", 1, clock()).why == "busy", "what was given back elsewhere is none of the hoster's"
        direct.close()


def test_conversations_with_one_domain_run_side_by_side_up_to_the_window(internet: Internet) -> None:
    [server] = internet.domain("a.test")
    direct = direct_over(internet)
    server.on("dot", Stall("250 2.0.0 taken"))
    threads = [threading.Thread(target=send, args=(direct, "b@a.test")) for _ in range(FIRST_CONVERSATIONS)]
    for thread in threads:
        thread.start()
    server.wait_until(lambda: server.connections == FIRST_CONVERSATIONS)
    server.release()
    for thread in threads:
        thread.join()
    assert len(server.messages) == FIRST_CONVERSATIONS
    direct.close()
