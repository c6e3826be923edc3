"""A provider as a way: kept connections, admission, breaker, quota, named delays, and one log line per attempt."""

from __future__ import annotations

import logging
import re
import threading

import pytest

from mailer.config.schema import Secret
from mailer.events import BreakerChanged, Event, Hub
from mailer.mail.outcome import Reply, Verdict
from mailer.transport.admission import Admission
from mailer.transport.breaker import FAULTS_TO_OPEN
from mailer.transport.provider import Provider
from tests.support.upstream import Answer, Behaviour, Disconnect, Login, Stall, Upstream
from tests.transport.deliveries import Clock, delivery_to, new_windows, provider_for


def send(provider: Provider, clock: Clock, *recipients: str) -> Verdict | Admission:
    """Admit and deliver; the first verdict, or the admission when closed."""
    admission = provider.admit(max(1, len(recipients)), clock())
    return provider.deliver(delivery_to(*recipients))[0] if admission.granted else admission


class TestBreaker:
    @pytest.mark.parametrize(
        ("step", "answer"),
        [
            ("connect", Disconnect()),
            ("connect", "554 no service"),
            ("ehlo", b"garbage\r\n"),
            ("auth", "535 5.7.8 no"),
            ("mail", Disconnect("421 4.3.2 closing")),
            ("rcpt", Disconnect("421 4.3.2 closing")),
            ("dot", Disconnect("421 4.3.2 closing")),
            ("data", Disconnect()),
        ],
    )
    def test_opens_on_faults_of_connection_login_and_421(self, step: str, answer: Answer) -> None:
        clock = Clock()
        with Upstream(Behaviour(login=Login("u", "p"))) as upstream:
            upstream.on(step, answer)
            provider = provider_for(upstream, clock=clock, settings={"username": "u", "password": Secret("p")})
            for _ in range(FAULTS_TO_OPEN):
                assert provider.open_at(clock()) == clock()
                assert isinstance(send(provider, clock), Verdict)
            assert send(provider, clock) == Admission(0, clock.now + 30, "breaker")
            assert provider.open_at(clock()) == clock.now + 30
            status = provider.status(clock())
            assert (status.breaker, status.why_closed, status.open_at) == ("open", "breaker", clock.now + 30)

    @pytest.mark.parametrize(
        ("step", "answer"),
        [("rcpt", "550 5.1.1 no"), ("rcpt", "450 4.2.1 later"), ("data", "451 no"), ("dot", "554 spam")],
    )
    def test_refused_recipient_or_content_does_not_trip_the_breaker(self, step: str, answer: str) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on(step, answer)
            provider = provider_for(upstream, clock=clock)
            for _ in range(3 * FAULTS_TO_OPEN):
                assert isinstance(send(provider, clock), Verdict)
            assert provider.status(clock()).breaker == "closed"

    def test_probe_closes_it_and_everyone_is_told(self) -> None:
        clock, hub = Clock(), Hub()
        events: list[Event] = []
        told: list[str] = []
        hub.subscribe(events.append)
        with Upstream() as upstream:
            upstream.on("connect", Disconnect())
            provider = provider_for(upstream, clock=clock, hub=hub)
            provider.on_breaker_closed = told.append
            for _ in range(FAULTS_TO_OPEN):
                send(provider, clock)
            upstream.on("connect")
            clock.now += 30
            probe = provider.admit(1, clock())
            assert probe.is_probe
            assert provider.admit(1, clock()).why == "breaker", "one message probes, the others wait"
            assert provider.status(clock()).breaker == "probing"
            assert provider.deliver(delivery_to())[0].is_delivered
            assert provider.admit(1, clock()).granted == 1
        assert [e.state for e in events if isinstance(e, BreakerChanged)] == ["open", "probing", "closed"]
        assert told == ["first"]

    def test_closes_idle_connections_when_it_opens(self) -> None:
        """They were opened before the trouble: neither the probe nor what follows shall be judged by them."""
        clock = Clock()
        many = FAULTS_TO_OPEN + 2
        with Upstream() as upstream:
            provider = provider_for(upstream, clock=clock)
            upstream.on("mail", Stall("250 2.1.0 ok"))
            threads = [threading.Thread(target=provider.deliver, args=(delivery_to(),)) for _ in range(many)]
            for thread in threads:
                thread.start()
            upstream.wait_until(lambda: upstream.connections == many)
            upstream.release()
            for thread in threads:
                thread.join()
            assert provider.status(clock()).connections == many
            upstream.on("mail", Disconnect())
            upstream.on("connect", "554 no service")
            for _ in range(FAULTS_TO_OPEN):
                send(provider, clock)
            assert provider.status(clock()).connections == 0

    def test_a_failed_probe_opens_it_for_twice_as_long(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("connect", Disconnect())
            provider = provider_for(upstream, clock=clock)
            for _ in range(FAULTS_TO_OPEN):
                send(provider, clock)
            clock.now += 30
            assert isinstance(send(provider, clock), Verdict)
            assert provider.open_at(clock()) == clock.now + 60

    def test_a_probe_with_a_refused_recipient_closes_it(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("connect", Disconnect())
            provider = provider_for(upstream, clock=clock)
            for _ in range(FAULTS_TO_OPEN):
                send(provider, clock)
            upstream.on("connect")
            upstream.on("rcpt", "550 5.1.1 no")
            clock.now += 30
            send(provider, clock)
            assert provider.status(clock()).breaker == "closed"

    def test_a_last_chance_passes_an_open_breaker_and_its_success_closes_it(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("connect", Disconnect())
            provider = provider_for(upstream, clock=clock)
            for _ in range(FAULTS_TO_OPEN):
                send(provider, clock)
            upstream.on("connect")
            assert provider.admit(1, clock(), forced=True) == Admission(1)
            assert provider.deliver(delivery_to())[0].is_delivered
            assert provider.status(clock()).breaker == "closed"

    def test_can_be_closed_by_hand(self) -> None:
        clock = Clock()
        told: list[str] = []
        with Upstream() as upstream:
            upstream.on("connect", Disconnect())
            provider = provider_for(upstream, clock=clock)
            provider.on_breaker_closed = told.append
            for _ in range(FAULTS_TO_OPEN):
                send(provider, clock)
            provider.close_breaker()
            assert provider.open_at(clock()) == clock()
            assert told == ["first"]

    def test_the_login_check_does_not_count(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("connect", Disconnect())
            provider = provider_for(upstream, clock=clock)
            for _ in range(FAULTS_TO_OPEN):
                assert not provider.check_login().is_success
            assert provider.status(clock()).breaker == "closed"


class TestQuota:
    def test_is_counted_in_recipients_and_granted_in_part(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            provider = provider_for(upstream, clock=clock, settings={"max_per_hour": 3})
            assert send(provider, clock, "a@x.test", "b@x.test")
            assert provider.admit(5, clock()) == Admission(1)
            closed = provider.admit(1, clock())
            assert (closed.granted, closed.why) == (0, "quota")
            assert closed.closed_until is not None
            assert closed.closed_until > clock() + 3600
            assert provider.status(clock()).why_closed == "quota"
            assert provider.admit(1, closed.closed_until).granted == 1

    def test_what_was_not_delivered_is_given_back(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("rcpt", {"b@x.test": "550 5.1.1 no"})
            provider = provider_for(upstream, clock=clock, settings={"max_per_day": 10})
            send(provider, clock, "a@x.test", "b@x.test", "c@x.test")
            assert provider.status(clock()).day_used == 2
            upstream.on("mail", Disconnect())
            send(provider, clock, "a@x.test", "c@x.test")
            assert provider.status(clock()).day_used == 2

    def test_what_is_in_doubt_stays_counted(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("dot", Disconnect(accepted=True))
            provider = provider_for(upstream, clock=clock, settings={"max_per_day": 10})
            send(provider, clock, "a@x.test", "b@x.test")
            assert provider.status(clock()).hour_used == 2

    def test_a_released_admission_is_given_back(self) -> None:
        clock = Clock()
        provider = provider_for(1, clock=clock, settings={"max_per_hour": 2})
        admission = provider.admit(2, clock())
        assert provider.admit(1, clock()).why == "quota"
        provider.release(admission, clock())
        assert provider.admit(2, clock()).granted == 2

    def test_without_a_limit_nothing_is_counted(self) -> None:
        clock, windows = Clock(), new_windows()
        provider = provider_for(1, clock=clock, windows=windows)
        admission = provider.admit(1000, clock())
        assert admission == Admission(1000)
        provider.release(admission, clock())
        assert (provider.status(clock()).hour_used, provider.status(clock()).day_used) == (0, 0)
        assert windows.take_changes() == []

    def test_survives_in_windows_handed_over(self) -> None:
        clock, windows = Clock(), new_windows()
        provider_for(1, clock=clock, windows=windows, settings={"max_per_hour": 2}).admit(2, clock())
        assert provider_for(1, clock=clock, windows=windows, settings={"max_per_hour": 2}).admit(1, clock()).why == "quota"

    def test_binds_a_last_chance_too(self) -> None:
        clock = Clock()
        provider = provider_for(1, clock=clock, settings={"max_per_hour": 1})
        provider.admit(1, clock())
        assert provider.admit(1, clock(), forced=True).why == "quota"

    def test_a_spent_quota_does_not_take_the_probes_place(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("connect", Disconnect())
            provider = provider_for(upstream, clock=clock, settings={"max_per_hour": 1})
            for _ in range(FAULTS_TO_OPEN):
                send(provider, clock)
            admission = provider.admit(1, clock(), forced=True)
            clock.now += 30
            assert provider.admit(1, clock()).why == "quota"
            provider.release(admission, clock())
            assert provider.admit(1, clock()).is_probe


class TestNamedDelay:
    @pytest.mark.parametrize(
        ("step", "answer"),
        [("connect", "450 wait 300 seconds"), ("mail", "451 4.7.1 try again in 300 seconds"), ("dot", "451 wait 5 minutes")],
    )
    def test_closes_the_provider_for_so_long(self, step: str, answer: str) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on(step, answer)
            provider = provider_for(upstream, clock=clock)
            verdict = send(provider, clock)
            assert isinstance(verdict, Verdict)
            assert verdict.closed_for_seconds == 300
            assert provider.admit(1, clock()) == Admission(0, clock.now + 300, "delay")
            assert provider.open_at(clock()) == clock.now + 300
            assert provider.admit(1, clock(), forced=True).granted == 1
            assert provider.admit(1, clock() + 300).granted == 1

    def test_of_one_recipient_is_only_told(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("rcpt", "451 4.7.1 greylisted, try again in 300 seconds")
            provider = provider_for(upstream, clock=clock)
            verdict = send(provider, clock)
            assert isinstance(verdict, Verdict)
            assert verdict.closed_for_seconds == 300
            assert provider.open_at(clock()) == clock()

    def test_ends_in_time_though_the_clock_is_set_back(self) -> None:
        clock = Clock()
        with Upstream() as upstream:
            upstream.on("mail", "451 4.7.1 try again in 300 seconds")
            provider = provider_for(upstream, clock=clock)
            send(provider, clock)
            clock.now -= 86400
            assert provider.open_at(clock()) <= clock.now + 300


def test_rewriting_reaches_the_wire_and_spares_the_null_sender() -> None:
    with Upstream() as upstream:
        provider = provider_for(upstream, settings={"envelope_from": "out@shop.test", "header_from": "shop@shop.test"})
        provider.deliver(delivery_to())
        provider.deliver(delivery_to(sender=""))
        first, report = upstream.wait_for(2)
        assert first.sender == "out@shop.test"
        assert report.sender == ""
        assert first.data.startswith(b"From: shop@shop.test\r\nReply-To: a@client.test\r\n")
        assert first.parameters == f"SIZE={len(first.data)}"


def test_every_attempt_is_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Upstream() as upstream:
        upstream.on("rcpt", {"b@x.test": "550 5.1.1 evil\x1b[31m \r\n".strip()})
        provider = provider_for(upstream)
        provider.deliver(delivery_to("a@x.test", "b@x.test"))
        provider.deliver(delivery_to("a@x.test"))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("delivery.attempt")]
    assert len(lines) == 2
    pattern = (
        r"delivery\.attempt id=0123456789abcdefg provider=first recipients=2 delivered=1 "
        r"reply='250 2\.0\.0 taken 1' stage=data seconds=\d+\.\d{3} connection=new tls=none"
    )
    assert re.fullmatch(pattern, lines[0])
    assert "connection=kept" in lines[1]
    assert "\x1b" not in caplog.text


def test_check_login_says_what_it_found() -> None:
    with Upstream(Behaviour(login=Login("u", "p"))) as upstream:
        settings = {"username": "u", "password": Secret("p")}
        assert provider_for(upstream, settings=settings).check_login() == Reply(250, "2.0.0", "login accepted, no TLS")
        upstream.wait_until(lambda: upstream.open_connections == 0)
        assert upstream.verbs() == ["EHLO", "AUTH", "QUIT"]
        reply = provider_for(upstream, settings=settings | {"password": Secret("wrong")}).check_login()
        assert (reply.code, reply.text) == (535, "bad login (at login)")


def test_status_of_a_provider_that_stands_well() -> None:
    clock = Clock()
    with Upstream() as upstream:
        provider = provider_for(upstream, clock=clock, settings={"max_per_hour": 10})
        send(provider, clock)
        status = provider.status(clock())
        assert (status.name, status.breaker, status.why_closed, status.open_at) == ("first", "closed", "", None)
        assert (status.connections, status.hour_used, status.day_used) == (1, 1, 1)
        assert status.last_delivered_at == clock()


def test_many_threads_share_a_provider() -> None:
    clock = Clock()
    with Upstream() as upstream:
        provider = provider_for(upstream, clock=clock, settings={"max_per_hour": 60})
        granted: list[int] = []

        def work() -> None:
            for _ in range(10):
                admission = provider.admit(1, clock())
                granted.append(admission.granted)
                if admission.granted:
                    provider.deliver(delivery_to())

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(granted) == 60
        assert len(upstream.wait_for(60)) == 60
        assert upstream.connections <= 8
        assert provider.status(clock()).hour_used == 60
        provider.close()
