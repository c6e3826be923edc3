from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailer.dns.memory import Memory

WITHIN_SECONDS = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Oracle:
    """Answers with how often it was asked."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.asked = 0
        self._seconds = seconds

    def __call__(self) -> tuple[int, float]:
        self.asked += 1
        return self.asked, self._seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Memory[str, int]:
    return Memory(3, clock)


def test_an_answer_is_kept_as_long_as_it_holds(memory: Memory[str, int], clock: Clock) -> None:
    oracle = Oracle(10.0)
    assert memory.recall("a", oracle) == 1
    clock.now = 9.9
    assert memory.recall("a", oracle) == 1
    clock.now = 10.0
    assert memory.recall("a", oracle) == 2


def test_keys_do_not_share_answers(memory: Memory[str, int]) -> None:
    oracle = Oracle()
    assert [memory.recall(key, oracle) for key in "abab"] == [1, 2, 1, 2]


def test_what_was_not_asked_for_the_longest_makes_room(memory: Memory[str, int]) -> None:
    oracle = Oracle()
    for key in "abc":
        memory.recall(key, oracle)
    memory.recall("a", oracle)
    memory.recall("d", oracle)
    assert len(memory) == 3
    assert memory.recall("a", oracle) == 1
    assert memory.recall("b", oracle) == 5


def test_all_is_asked_anew_after_forget(memory: Memory[str, int]) -> None:
    oracle = Oracle()
    memory.recall("a", oracle)
    memory.forget()
    assert memory.recall("a", oracle) == 2


def test_who_asks_what_is_being_asked_waits_for_the_same_answer(memory: Memory[str, int]) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()
    oracle = Oracle()

    def slowly() -> tuple[int, float]:
        is_asked.set()
        assert may_answer.wait(WITHIN_SECONDS)
        return oracle()

    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(memory.recall, "a", slowly)
        assert is_asked.wait(WITHIN_SECONDS)
        others = [threads.submit(memory.recall, "a", oracle) for _ in range(8)]
        assert memory.recall("b", lambda: (7, 10.0)) == 7  # another key waits for nobody
        may_answer.set()
        assert {future.result(WITHIN_SECONDS) for future in (first, *others)} == {1}


def test_who_waited_for_a_question_that_raised_asks_again(memory: Memory[str, int]) -> None:
    is_asked, may_fail = threading.Event(), threading.Event()

    def fails() -> tuple[int, float]:
        is_asked.set()
        assert may_fail.wait(WITHIN_SECONDS)
        raise OSError("broken")

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(memory.recall, "a", fails)
        assert is_asked.wait(WITHIN_SECONDS)
        second = threads.submit(memory.recall, "a", Oracle())
        may_fail.set()
        with pytest.raises(OSError, match="broken"):
            first.result(WITHIN_SECONDS)
        assert second.result(WITHIN_SECONDS) == 1
    assert "asking=0" in repr(memory)
