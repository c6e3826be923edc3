"""All providers of a configuration: reload, login checks, the watch over the first."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from mailer.config.schema import Config, ProviderConfig, Secret
from mailer.events import Hub
from mailer.mail.address import AddressError
from mailer.mail.outcome import Reply
from mailer.transport.breaker import FAULTS_TO_OPEN
from mailer.transport.providers import PASSED_OVER_SECONDS, ProviderSet, Surroundings, advice
from tests.support.upstream import Behaviour, Disconnect, Login, Upstream
from tests.transport.deliveries import Clock, delivery_to, new_windows


def at(upstream: Upstream, name: str, **settings: object) -> ProviderConfig:
    return ProviderConfig(name=name, host=upstream.host, port=upstream.port, timeout=10, **settings)  # type: ignore[arg-type]  # any of its fields


def configured(*providers: ProviderConfig) -> Config:
    return Config(smtp_port=0, forward_smtp=True, forward_providers=providers, hostname="mailer.test")


def set_of(clock: Clock, *providers: ProviderConfig) -> ProviderSet:
    return ProviderSet(configured(*providers), new_windows(), Hub(), Surroundings(clock=clock))


def test_providers_are_found_by_name_and_in_order() -> None:
    with Upstream() as upstream:
        providers = set_of(Clock(), at(upstream, "b"), at(upstream, "a"))
        assert [p.name for p in providers] == ["b", "a"]
        found = providers.get("a")
        assert found is not None
        assert found.name == "a"
        assert providers.get("c") is None
        assert len(providers) == 2


def test_a_reload_keeps_what_did_not_change_with_breaker_quota_and_connections() -> None:
    clock = Clock()
    with Upstream() as upstream, Upstream() as broken:
        broken.on("connect", Disconnect())
        good, bad = at(upstream, "good", max_per_hour=10), at(broken, "bad")
        providers = set_of(clock, good, bad)
        first, second = providers
        first.admit(1, clock())
        assert first.deliver(delivery_to())[0].is_delivered
        for _ in range(FAULTS_TO_OPEN):
            second.deliver(delivery_to())
        providers.configure(configured(bad, at(upstream, "new"), good))
        assert [p.name for p in providers] == ["bad", "new", "good"]
        assert list(providers)[2] is first
        assert next(iter(providers)) is second
        assert [(s.breaker, s.connections, s.hour_used) for s in providers.statuses(clock())] == [
            ("open", 0, 0),
            ("closed", 0, 0),
            ("closed", 1, 1),
        ]
        assert first.deliver(delivery_to())[0].is_delivered
        assert upstream.connections == 1


def test_a_changed_provider_starts_anew_but_keeps_its_count() -> None:
    clock = Clock()
    with Upstream() as upstream:
        old = at(upstream, "a", max_per_hour=1)
        providers = set_of(clock, old)
        before = next(iter(providers))
        before.admit(1, clock())
        before.deliver(delivery_to())
        providers.configure(configured(replace(old, timeout=20)))
        after = next(iter(providers))
        assert after is not before
        assert after.admit(1, clock()).why == "quota"
        upstream.wait_until(lambda: upstream.open_connections == 0)


def test_what_waits_for_a_breaker_is_told_when_its_provider_is_replaced() -> None:
    clock = Clock()
    told: list[str] = []
    with Upstream() as upstream:
        upstream.on("connect", Disconnect())
        config = at(upstream, "a")
        providers = set_of(clock, config)
        providers.on_breaker_closed = told.append
        for _ in range(FAULTS_TO_OPEN):
            next(iter(providers)).deliver(delivery_to())
        providers.configure(configured(replace(config, timeout=20)))
        assert told == ["a"]


def test_an_invalid_reload_changes_nothing() -> None:
    with Upstream() as upstream:
        providers = set_of(Clock(), at(upstream, "a"))
        before = list(providers)
        with pytest.raises(AddressError):
            providers.configure(configured(at(upstream, "a", envelope_from="no address")))
        assert list(providers) == before


def test_all_breakers_close_by_hand() -> None:
    clock = Clock()
    told: list[str] = []
    with Upstream() as upstream:
        upstream.on("connect", Disconnect())
        providers = set_of(clock, at(upstream, "a"), at(upstream, "b"))
        providers.on_breaker_closed = told.append
        for provider in providers:
            for _ in range(FAULTS_TO_OPEN):
                provider.deliver(delivery_to())
        providers.close_all_breakers()
        assert [s.breaker for s in providers.statuses(clock())] == ["closed", "closed"]
        assert told == ["a", "b"]


def test_login_checks_are_logged_and_never_fatal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Upstream(Behaviour(login=Login("u", "p"))) as upstream:
        user = {"username": "u", "password": Secret("p")}
        providers = set_of(
            Clock(),
            at(upstream, "good", **user),
            at(upstream, "bad", **(user | {"password": Secret("wrong")})),
            ProviderConfig(name="gone", host="127.0.0.1", port=1, timeout=10),
        )
        providers.check_logins().join()
        assert "provider.login_ok name=good" in caplog.text
        assert "provider.login_failed name=bad reply='535 5.7.8 bad login (at login)' do='check username" in caplog.text
        assert "provider.login_failed name=gone" in caplog.text
        assert "check host and port" in caplog.text
        assert "wrong" not in caplog.text


@pytest.mark.parametrize(
    ("host", "reply", "word"),
    [
        ("smtp.gmail.com", Reply(535, "5.7.8", "no"), "app password"),
        ("smtp.office365.com", Reply(535, "5.7.3", "no"), "oauth2"),
        ("smtp.x.test", Reply(454, "4.7.5", "bad certificate"), "SSL_CERT_FILE"),
        ("smtp.x.test", Reply(554, "5.3.2", "no"), "next provider"),
    ],
)
def test_a_failed_check_says_what_to_do(host: str, reply: Reply, word: str) -> None:
    assert word in advice(ProviderConfig(host=host, port=587), reply)


def test_a_login_in_clear_text_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    remote = ProviderConfig(name="a", host="smtp.x.test", port=25, username="u", password=Secret("p"), tls="none")
    providers = set_of(Clock(), remote)
    assert caplog.text.count("login_in_clear_text name=a") == 1
    providers.configure(configured(remote))
    assert caplog.text.count("login_in_clear_text name=a") == 1


class TestFirstProvider:
    def test_passed_over_for_a_quarter_of_an_hour_is_warned_of_once(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = Clock()
        with Upstream() as upstream:
            providers = set_of(clock, at(upstream, "first", priority=0), at(upstream, "second", priority=1))
            first, second = providers
            for _ in range(int(PASSED_OVER_SECONDS // 60) + 5):
                clock.now += 60
                second.deliver(delivery_to())
                providers.step(clock())
            assert caplog.text.count("provider.passed_over name=first") == 1
            first.deliver(delivery_to())
            providers.step(clock())
            clock.now += 60
            second.deliver(delivery_to())
            providers.step(clock())
            assert caplog.text.count("provider.passed_over") == 1

    def test_that_takes_part_is_not_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = Clock()
        with Upstream() as upstream:
            providers = set_of(clock, at(upstream, "first", priority=0), at(upstream, "second", priority=1))
            first, second = providers
            for minute in range(60):
                clock.now += 60
                second.deliver(delivery_to())
                if minute % 10 == 0:
                    first.deliver(delivery_to())
                providers.step(clock())
            assert "passed_over" not in caplog.text

    def test_is_not_one_that_serves_other_domains_nor_one_of_equal_priority(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = Clock()
        with Upstream() as upstream:
            providers = set_of(
                clock,
                at(upstream, "special", priority=0, domains=("y.test",)),
                at(upstream, "first", priority=1),
                at(upstream, "equal", priority=1),
            )
            for _ in range(30):
                clock.now += 60
                list(providers)[2].deliver(delivery_to())
                providers.step(clock())
            assert "passed_over" not in caplog.text


def test_close_ends_idle_connections() -> None:
    with Upstream() as upstream:
        providers = set_of(Clock(), at(upstream, "a"))
        next(iter(providers)).deliver(delivery_to())
        assert upstream.open_connections == 1
        providers.close()
        upstream.wait_until(lambda: upstream.open_connections == 0)
