"""Limits are never overshot and counts are exact, whoever takes and gives back at once."""

from __future__ import annotations

from functools import partial

from mailer.config.schema import RateLimitsConfig
from mailer.events import Event, Hub, SubmissionRefused
from mailer.mail.address import Address
from mailer.policy.auth import FailedLogins
from mailer.policy.limits import GLOBAL, RateLimiter
from mailer.window import Limits, Windows
from tests.stress.together import THREADS, many, together

NOW = 1_700_000_000.0
ROUNDS = 1000


def test_exactly_as_many_as_fit_are_granted() -> None:
    windows = Windows(lambda name: ())
    limits = Limits(THREADS * ROUNDS // 2, 0)
    granted = [0] * THREADS

    def take(number: int) -> None:
        for round_number in range(ROUNDS):
            granted[number] += windows.take("one", 1, limits, NOW + round_number)

    many(take)
    assert sum(granted) == limits.per_hour
    assert windows.counts("one", NOW + ROUNDS) == (limits.per_hour, limits.per_hour)


def test_what_is_given_back_is_gone_and_every_change_is_handed_over() -> None:
    windows = Windows(lambda name: ())
    stored: dict[str, int] = {}

    def use(number: int) -> None:
        if number == 0:
            for _ in range(ROUNDS):
                keep()
            return
        for _ in range(ROUNDS):
            windows.take("one", 2, Limits(10**9, 0), NOW)
            windows.give_back("one", 1, NOW)
            windows.take(f"own-{number}", 1, Limits(0, 10**9), NOW)

    def keep() -> None:
        for bucket in windows.take_changes():
            if bucket.span == 60:
                stored[bucket.name] = bucket.count

    many(use)
    keep()
    assert stored == {"one": (THREADS - 1) * ROUNDS, **{f"own-{number}": ROUNDS for number in range(1, THREADS)}}


def test_a_name_read_back_by_many_at_once_is_counted_once() -> None:
    windows = Windows(lambda name: ())
    for round_number in range(ROUNDS // 5):
        name = f"n{round_number}"
        together([partial(windows.take, name, 1, Limits(9, 9), NOW)] * 3)
        assert windows.counts(name, NOW) == (3, 3)


def test_sessions_at_once_cannot_overshoot_a_rate_limit() -> None:
    windows, hub, events = Windows(lambda name: ()), Hub(), list[Event]()
    hub.subscribe(events.append)
    most = 100
    config = RateLimitsConfig(enabled=True, max_per_hour=0, max_per_day=0, global_max_per_hour=most, global_max_per_day=0)
    limiter = RateLimiter(config, windows, hub)
    kept = [0] * THREADS

    def submit(number: int) -> None:
        sender = Address(f"app{number}", "example.com")
        for round_number in range(ROUNDS // 10):
            reservation = limiter.reserve(sender, NOW)
            if reservation is None:
                continue
            if round_number % 3:
                kept[number] += 1
                reservation.keep()
            reservation.release(NOW)

    many(submit)
    assert windows.counts(GLOBAL, NOW) == (sum(kept), sum(kept))
    assert sum(kept) <= most
    assert events == [SubmissionRefused("rate")] * len(events)


def test_every_wrong_login_is_counted() -> None:
    logins = FailedLogins()
    many(lambda _: [logins.count("192.0.2.1", NOW) for _ in range(ROUNDS)])
    assert logins.count("192.0.2.1", NOW) == THREADS * ROUNDS + 1
