"""Who rouses the spool's writer, and who rides along."""

from __future__ import annotations

import pytest

from mailer.spool.batch import ArrivalRows, ChangeRows
from mailer.spool.handover import MANY_CHANGES, Handover
from mailer.spool.store import SpoolError


class Scene:
    """A hand-over whose writer is the test: ``roused`` counts how often it was told to look."""

    def __init__(self) -> None:
        self.roused = 0
        self.handover = Handover(self._note)

    def _note(self) -> None:
        self.roused += 1

    def record(self, count: int = 1) -> None:
        for _ in range(count):
            self.handover.change(ChangeRows("id", (), (), (), lambda: None))

    def announce(self, count: int = 1) -> None:
        for _ in range(count):
            self.handover.announce(ArrivalRows((), (), None), None, lambda settled: None)

    def look(self, most: int = 100) -> tuple[int, int]:
        group = self.handover.take(most)
        return len(group.arrivals), len(group.changes)


def test_one_wake_is_enough_for_all_that_comes_before_the_writer_looks() -> None:
    scene = Scene()
    scene.announce(3)
    scene.record(3)
    assert scene.roused == 1
    assert scene.look() == (3, 3)
    scene.announce()
    assert scene.roused == 2


def test_record_rouses_a_writer_that_has_nothing_to_do() -> None:
    scene = Scene()
    assert scene.look() == (0, 0)
    scene.record()
    assert scene.roused == 1


def test_record_waits_for_company_while_the_writer_is_busy_but_not_with_many_others() -> None:
    scene = Scene()
    scene.announce()
    scene.look()
    scene.record(MANY_CHANGES - 1)
    assert scene.roused == 1
    assert not scene.handover.has_more()
    scene.record()
    assert scene.roused == 2
    assert scene.handover.has_more()
    assert scene.look() == (0, MANY_CHANGES)


def test_record_rouses_again_once_the_writer_has_found_nothing() -> None:
    scene = Scene()
    scene.announce()
    scene.look()
    scene.look()
    scene.record()
    assert scene.roused == 2


def test_what_exceeds_a_group_is_still_there() -> None:
    scene = Scene()
    scene.announce(5)
    assert scene.look(3) == (3, 0)
    assert scene.handover.has_more()
    assert scene.look(3) == (2, 0)
    assert not scene.handover.has_more()


def test_closed_hand_over_takes_nothing() -> None:
    scene = Scene()
    scene.handover.close()
    with pytest.raises(SpoolError, match="closed"):
        scene.record()
    with pytest.raises(SpoolError, match="closed"):
        scene.announce()
    assert scene.look() == (0, 0)
