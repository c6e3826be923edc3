"""A clock that was wrong and is set right: what was to wait by the wrong one must not wait for years."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.dispatch.clock import LONGEST_WAIT_SECONDS, LOOK_SECONDS
from mailer.spool.store import Holder
from tests.dispatch.test_parking import NOW, Yard
from tests.spool.messages import defer, submit

YEAR_SECONDS = 365 * 86400.0


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.spool.close()


def due_at(yard: Yard, message_id: str) -> float | None:
    row = yard.spool.find(message_id)
    assert row is not None
    return row.due_at


def test_what_waits_is_due_once_the_clock_is_set_back(yard: Yard) -> None:
    wrong = NOW + YEAR_SECONDS
    message_id = submit(yard.spool, at=wrong, lane="a")
    yard.parking.step(wrong)
    defer(yard.spool, message_id, wrong + 300, at=wrong)
    yard.parking.step(NOW)
    assert due_at(yard, message_id) == NOW


def test_what_waits_keeps_its_time_while_the_clock_goes_on(yard: Yard) -> None:
    message_id = submit(yard.spool, at=NOW, lane="a")
    defer(yard.spool, message_id, NOW + 300, at=NOW)
    yard.parking.step(NOW)
    yard.parking.step(NOW + YEAR_SECONDS)
    assert due_at(yard, message_id) == NOW + 300


def test_folder_is_looked_at_again_once_the_clock_is_set_back(yard: Yard) -> None:
    yard.parking.step(NOW + YEAR_SECONDS)
    yard.drop("dropped")
    yard.parking.step(NOW)
    row = yard.spool.find("dropped")
    assert row is not None
    assert row.holder is Holder.FILE


def test_what_waits_longer_than_any_wait_is_due_at_start(yard: Yard) -> None:
    """The clock was set right while the program did not run."""
    wrong = NOW + YEAR_SECONDS
    stuck, waiting = submit(yard.spool, at=wrong, lane="a"), submit(yard.spool, at=NOW, lane="a")
    defer(yard.spool, stuck, wrong + 300, at=wrong)
    defer(yard.spool, waiting, NOW + LONGEST_WAIT_SECONDS, at=NOW)
    yard.parking.step(NOW)
    assert (due_at(yard, stuck), due_at(yard, waiting)) == (NOW, NOW + LONGEST_WAIT_SECONDS)


def test_what_waits_by_a_clock_that_was_wrong_for_a_moment_is_due_soon(yard: Yard) -> None:
    """Set forward and back again between two looks."""
    yard.parking.step(NOW)
    message_id = submit(yard.spool, at=NOW, lane="a")
    defer(yard.spool, message_id, NOW + YEAR_SECONDS + 300, at=NOW + YEAR_SECONDS)
    yard.parking.step(NOW + LOOK_SECONDS)
    assert due_at(yard, message_id) == NOW + LOOK_SECONDS


def test_long_interval_between_rounds_is_no_wrong_clock(yard: Yard) -> None:
    yard.parking.interval_seconds = 30 * 86400.0
    message_id = submit(yard.spool, at=NOW, lane="a")
    defer(yard.spool, message_id, NOW + yard.parking.interval_seconds, at=NOW)
    yard.parking.step(NOW)
    assert due_at(yard, message_id) == NOW + yard.parking.interval_seconds
