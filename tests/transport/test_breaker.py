"""The circuit breaker, with a clock of the test's own."""

from __future__ import annotations

import threading

from mailer.transport.breaker import FAULTS_TO_OPEN, PROBE_LOST_SECONDS, Breaker

NOW = 1_700_000_000.0


def opened(now: float = NOW) -> Breaker:
    breaker = Breaker()
    assert [breaker.fault(now) for _ in range(FAULTS_TO_OPEN)] == [None] * (FAULTS_TO_OPEN - 1) + ["open"]
    return breaker


def test_opens_after_five_faults_in_a_row() -> None:
    breaker = opened()
    assert breaker.state == "open"
    assert breaker.admit(NOW) == (False, None)
    assert breaker.open_at(NOW) == NOW + 30


def test_a_success_between_faults_starts_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(10):
        for _ in range(FAULTS_TO_OPEN - 1):
            assert breaker.fault(NOW) is None
        assert breaker.success() is None
    assert breaker.state == "closed"


def test_after_thirty_seconds_one_message_probes_and_the_others_wait() -> None:
    breaker = opened()
    assert breaker.admit(NOW + 29.9) == (False, None)
    assert breaker.admit(NOW + 30) == (True, "probing")
    assert breaker.admit(NOW + 31) == (False, None)
    assert NOW + 31 < breaker.open_at(NOW + 31) <= NOW + 33, "look again soon while the probe is under way"


def test_each_failed_probe_doubles_the_time_up_to_five_minutes() -> None:
    breaker, now = opened(), NOW
    waits = []
    for _ in range(6):
        waits.append(breaker.open_at(now) - now)
        now = breaker.open_at(now)
        assert breaker.admit(now) == (True, "probing")
        assert breaker.fault(now) == "open"
    assert waits == [30, 60, 120, 240, 300, 300]


def test_a_successful_probe_closes_and_forgets() -> None:
    breaker = opened()
    breaker.admit(NOW + 30)
    assert breaker.success() == "closed"
    assert breaker.open_at(NOW + 30) == NOW + 30
    for _ in range(FAULTS_TO_OPEN):
        breaker.fault(NOW + 100)
    assert breaker.open_at(NOW + 100) == NOW + 130, "the next opening is a first one again"


def test_a_released_probe_leaves_the_place_to_the_next_message() -> None:
    breaker = opened()
    breaker.admit(NOW + 30)
    breaker.release(NOW + 31)
    assert breaker.open_at(NOW + 31) == NOW + 31
    assert breaker.admit(NOW + 31) == (True, "probing")


def test_a_probe_that_never_ends_does_not_keep_the_provider_closed() -> None:
    breaker = opened()
    breaker.admit(NOW + 30)
    assert breaker.admit(NOW + 30 + PROBE_LOST_SECONDS) == (True, "probing")


def test_faults_of_conversations_begun_before_it_opened_do_not_prolong_it() -> None:
    breaker = opened()
    assert breaker.fault(NOW + 10) is None
    assert breaker.open_at(NOW + 10) == NOW + 30


def test_a_clock_set_back_does_not_keep_it_open_for_longer_than_meant() -> None:
    breaker = opened()
    a_day_earlier = NOW - 86400
    assert breaker.open_at(a_day_earlier) <= a_day_earlier + 30
    assert breaker.admit(a_day_earlier + 30) == (True, "probing")


def test_of_many_threads_one_gets_the_probe() -> None:
    breaker = opened()
    start, admitted = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        admitted.append(breaker.admit(NOW + 30)[0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admitted.count(True) == 1
