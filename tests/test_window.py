"""Sliding windows: nothing is forgotten early, everything at most one bucket late."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from mailer.window import DAY_SECONDS, HOUR_SECONDS, MAX_NAMES_IN_MEMORY, Bucket, Limits, Windows

NOW = 1_700_000_000.0
MINUTE = 60
DAY_BUCKET_SECONDS = 20 * 60
UNLIMITED = Limits(0, 0)


def windows() -> Windows:
    return Windows(lambda _name: ())


def test_the_limit_of_an_hour_is_reached_and_frees_itself() -> None:
    counts = windows()
    limits = Limits(per_hour=2, per_day=0)
    assert [counts.take("a", 1, limits, NOW) for _ in range(3)] == [1, 1, 0]
    assert counts.take("a", 1, limits, NOW + HOUR_SECONDS - MINUTE) == 0
    assert counts.take("a", 1, limits, NOW + HOUR_SECONDS + 2 * MINUTE) == 1


def test_the_limit_of_a_day_holds_when_that_of_the_hour_is_free_again() -> None:
    counts = windows()
    limits = Limits(per_hour=2, per_day=3)
    assert counts.take("a", 2, limits, NOW) == 2
    assert counts.take("a", 2, limits, NOW + 2 * HOUR_SECONDS) == 1
    assert counts.take("a", 1, limits, NOW + 4 * HOUR_SECONDS) == 0
    assert counts.take("a", 1, limits, NOW + DAY_SECONDS + 2 * DAY_BUCKET_SECONDS) == 1


def test_zero_is_no_limit_and_still_counts() -> None:
    counts = windows()
    assert counts.take("a", 1000, UNLIMITED, NOW) == 1000
    assert counts.counts("a", NOW) == (1000, 1000)


def test_a_part_is_granted_where_the_whole_does_not_fit() -> None:
    counts = windows()
    assert counts.take("a", 10, Limits(7, 0), NOW) == 7
    assert counts.counts("a", NOW) == (7, 7)


def test_names_do_not_share_counts() -> None:
    counts = windows()
    assert counts.take("a", 1, Limits(1, 1), NOW) == 1
    assert counts.take("b", 1, Limits(1, 1), NOW) == 1


def test_what_is_given_back_a_minute_later_is_free_again() -> None:
    counts = windows()
    limits = Limits(per_hour=1, per_day=1)
    assert counts.take("a", 1, limits, NOW) == 1
    counts.give_back("a", 1, NOW + 2 * MINUTE)
    assert counts.counts("a", NOW + 2 * MINUTE) == (0, 0)
    assert counts.take("a", 1, limits, NOW + 2 * MINUTE) == 1


def test_what_is_given_back_may_lie_in_several_buckets() -> None:
    counts = windows()
    for wait in (0, 2 * MINUTE, 30 * MINUTE):
        counts.take("a", 2, UNLIMITED, NOW + wait)
    counts.give_back("a", 5, NOW + 30 * MINUTE)
    assert counts.counts("a", NOW + 30 * MINUTE) == (1, 1)


def test_more_is_never_given_back_than_was_counted() -> None:
    counts = windows()
    counts.take("a", 2, UNLIMITED, NOW)
    counts.give_back("a", 5, NOW)
    assert counts.counts("a", NOW) == (0, 0)


def test_a_count_given_back_is_stored_as_such() -> None:
    counts = windows()
    counts.take("a", 3, UNLIMITED, NOW)
    counts.take_changes()
    counts.give_back("a", 3, NOW)
    assert {bucket.count for bucket in counts.take_changes()} == {0}


def test_free_at_names_the_moment_at_which_one_more_fits() -> None:
    counts = windows()
    limits = Limits(per_hour=3, per_day=0)
    counts.take("a", 1, limits, NOW)
    counts.take("a", 2, limits, NOW + 10 * MINUTE)
    free_at = counts.free_at("a", limits, NOW + 20 * MINUTE)
    assert counts.take("a", 1, limits, free_at - 1) == 0
    assert counts.take("a", 1, limits, free_at) == 1
    assert counts.free_at("b", limits, NOW) == NOW


def test_counts_outlive_the_process() -> None:
    first = windows()
    first.take("a", 4, UNLIMITED, NOW)
    first.take("a", 1, UNLIMITED, NOW + 5 * MINUTE)
    stored = first.take_changes()
    second = Windows(lambda name: [bucket for bucket in stored if bucket.name == name])
    assert second.counts("a", NOW + 6 * MINUTE) == (5, 5)
    assert second.counts("a", NOW + HOUR_SECONDS + 2 * MINUTE) == (1, 5)


def test_only_changed_names_are_handed_over_and_only_once() -> None:
    counts = windows()
    counts.take("a", 1, UNLIMITED, NOW)
    counts.counts("b", NOW)
    assert {bucket.name for bucket in counts.take_changes()} == {"a"}
    assert counts.take_changes() == []


def test_a_clock_set_back_neither_forgets_nor_blocks_for_ever() -> None:
    counts = windows()
    limits = Limits(per_hour=1, per_day=0)
    assert counts.take("a", 1, limits, NOW) == 1
    assert counts.take("a", 1, limits, NOW - 10 * MINUTE) == 0
    a_week_back = NOW - 7 * DAY_SECONDS
    assert counts.take("a", 1, limits, a_week_back) == 1


def test_memory_is_bounded_and_what_left_it_is_read_back() -> None:
    stored: dict[str, list[Bucket]] = {}
    counts = Windows(lambda name: stored.get(name, []))
    for number in range(MAX_NAMES_IN_MEMORY + 50):
        counts.take(f"name{number}", 1, UNLIMITED, NOW)
        for bucket in counts.take_changes():
            stored.setdefault(bucket.name, []).append(bucket)
    assert f"names={MAX_NAMES_IN_MEMORY}" in repr(counts)
    assert counts.counts("name0", NOW) == (1, 1)


def test_unsaved_counts_are_not_forgotten() -> None:
    counts = windows()
    counts.take("first", 1, UNLIMITED, NOW)
    for number in range(MAX_NAMES_IN_MEMORY + 10):
        counts.counts(f"name{number}", NOW)
    assert counts.counts("first", NOW) == (1, 1)


def test_no_limit_is_overshot_by_many_threads() -> None:
    counts = windows()
    granted: list[int] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait(30)
        granted.append(sum(counts.take("a", 1, Limits(100, 0), NOW) for _ in range(50)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(granted) == 100


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 5)), min_size=1, max_size=60))
def test_nothing_is_forgotten_early_and_nothing_late(steps: list[tuple[int, int]]) -> None:
    """Against the plain truth: a list of all times."""
    counts = windows()
    now = NOW
    taken: list[tuple[float, int]] = []
    for wait, amount in steps:
        now += wait
        counts.take("a", amount, UNLIMITED, now)
        taken.append((now, amount))
        for total, width, late in zip(
            counts.counts("a", now), (HOUR_SECONDS, DAY_SECONDS), (MINUTE, DAY_BUCKET_SECONDS), strict=True
        ):
            surely = sum(n for at, n in taken if at > now - width)
            at_most = sum(n for at, n in taken if at > now - width - late)
            assert surely <= total <= at_most
