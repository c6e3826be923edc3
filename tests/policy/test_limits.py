"""Rate limits: reserved at MAIL, kept when accepted, given back otherwise."""

from __future__ import annotations

import pytest

from mailer.config.schema import RateLimitsConfig
from mailer.events import Event, Hub, SubmissionRefused
from mailer.mail.address import NULL_SENDER, Address
from mailer.policy.limits import GLOBAL, RateLimiter, name_of
from mailer.window import Windows

NOW = 1_700_000_000.0
A = Address.parse("a@example.com")
B = Address.parse("b@example.com")


class Limited:
    """A limiter with what it publishes and counts."""

    def __init__(self, *, per_hour: int = 0, per_day: int = 0, global_hour: int = 0, global_day: int = 0) -> None:
        self.events: list[Event] = []
        hub = Hub()
        hub.subscribe(self.events.append)
        self.windows = Windows(lambda _name: ())
        self.config = RateLimitsConfig(
            enabled=True,
            max_per_hour=per_hour,
            max_per_day=per_day,
            global_max_per_hour=global_hour,
            global_max_per_day=global_day,
        )
        self.limiter = RateLimiter(self.config, self.windows, hub)

    def counted(self, sender: Address) -> int:
        return self.windows.counts(name_of(sender), NOW)[0]


def test_a_sender_over_its_limit_is_refused_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    limited = Limited(per_hour=2)
    assert limited.limiter.reserve(A, NOW)
    assert limited.limiter.reserve(A, NOW)
    assert limited.limiter.reserve(A, NOW) is None
    assert limited.limiter.reserve(B, NOW)
    assert limited.events == [SubmissionRefused("rate")]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "limits.reached scope=sender from=a@example.com" in caplog.text


def test_a_sender_is_one_whatever_its_letter_case() -> None:
    limited = Limited(per_hour=1)
    assert limited.limiter.reserve(Address.parse("A.B@Example.COM"), NOW)
    assert limited.limiter.reserve(Address.parse("a.b@example.com"), NOW) is None


def test_the_global_limit_holds_over_all_senders_and_counts_nobody_it_refuses() -> None:
    limited = Limited(global_hour=1)
    assert limited.limiter.reserve(A, NOW)
    assert limited.limiter.reserve(B, NOW) is None
    assert limited.counted(B) == 0


def test_the_null_sender_counts_globally_only() -> None:
    limited = Limited(per_hour=1, global_hour=3)
    for _ in range(3):
        assert limited.limiter.reserve(NULL_SENDER, NOW)
    assert limited.limiter.reserve(NULL_SENDER, NOW) is None
    assert limited.windows.counts(GLOBAL, NOW) == (3, 3)


def test_what_is_released_is_free_again_and_what_is_kept_is_not() -> None:
    limited = Limited(per_hour=1)
    first = limited.limiter.reserve(A, NOW)
    assert first is not None
    first.release(NOW)
    first.release(NOW)
    assert (limited.counted(A), limited.windows.counts(GLOBAL, NOW)[0]) == (0, 0)
    second = limited.limiter.reserve(A, NOW)
    assert second is not None
    second.keep()
    second.release(NOW)
    assert limited.counted(A) == 1


def test_a_limit_of_the_day_holds() -> None:
    limited = Limited(per_day=1)
    assert limited.limiter.reserve(A, NOW)
    assert limited.limiter.reserve(A, NOW + 7200) is None


def test_switched_off_nothing_is_counted_and_new_limits_apply_at_once() -> None:
    limited = Limited(per_hour=1)
    limited.limiter.configure(RateLimitsConfig(enabled=False))
    for _ in range(5):
        reservation = limited.limiter.reserve(A, NOW)
        assert reservation is not None
        reservation.release(NOW)
    assert limited.counted(A) == 0
    limited.limiter.configure(limited.config)
    assert limited.limiter.reserve(A, NOW)
    assert limited.limiter.reserve(A, NOW) is None


def test_our_own_reports_count_globally_and_are_never_refused() -> None:
    limited = Limited(global_hour=2)
    for _ in range(3):
        limited.limiter.count_report(NOW)
    assert limited.windows.counts(GLOBAL, NOW) == (3, 3)
    assert limited.limiter.reserve(A, NOW) is None


def test_nothing_is_counted_where_limits_are_off() -> None:
    limited = Limited()
    limited.limiter.configure(RateLimitsConfig(enabled=False))
    limited.limiter.count_report(NOW)
    assert limited.windows.counts(GLOBAL, NOW) == (0, 0)
