"""Dropped files are taken up once though several scans run at once, and a parked file is whole whoever looks at it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mailer.mail.content import MemoryContent
from mailer.mail.envelope import State
from mailer.spool.failed import FailedStore, NotParked
from mailer.spool.parked import ParkedFile, Unreadable
from mailer.spool.settling import SETTLED_SECONDS, Settling, Signature
from mailer.spool.store import Holder, Stored
from tests.dispatch.test_parking import NOW, Yard
from tests.spool.messages import envelope
from tests.stress.together import THREADS, many, together

FILES = 25
ROUNDS = 40


def test_a_dropped_file_is_taken_up_once(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.parking.recover()

    def drop(number: int) -> None:
        for round_number in range(FILES):
            yard.drop(f"f{number}-{round_number}", ID="the same in all" if round_number % 2 else f"f{number}-{round_number}")

    def scan() -> None:
        for _ in range(10):
            yard.parking.scan(NOW)

    together([*[partial(drop, number) for number in range(2)], *[scan] * 4])
    yard.parking.scan(NOW + 100.0)  # what was amid being written at the last look
    adopted = [stored.envelope.id for stored in yard.adopted()]
    assert len(adopted) == len(set(adopted)) == 2 * FILES
    assert sorted(adopted) == sorted(name for name, _ in yard.failed.names())
    yard.spool.close()


def test_a_parked_file_is_whole_or_not_there(tmp_path: Path) -> None:
    failed = FailedStore(tmp_path)

    def park(number: int) -> None:
        for round_number in range(ROUNDS):
            name, text = f"m{number}", f"{number} {round_number} ".encode() * 500
            message = envelope(name, size=len(text) + 2)
            stored = Stored(message, "lane", State.RETRYING, holder=Holder.FILE, rounds=round_number)
            failed.prepare(ParkedFile.of(stored, MemoryContent(text + b"\r\n")))
            failed.publish(name)
            if round_number % 3 == 1:
                failed.remove(name)

    def look() -> None:
        for _ in range(ROUNDS):
            for name, _ in failed.names():
                try:
                    found = failed.read(name)
                except NotParked:
                    continue
                except Unreadable:
                    # Of one that is removed now and then the hidden file is read, which may be amid being written.
                    assert int(name[1:]) % 2
                    continue
                content = b"".join(found.content.chunks())
                assert content == f"{name[1:]} {found.rounds} ".encode() * 500 + b"\r\n"
            assert 0 <= failed.count(0.0) <= THREADS

    together([*[partial(park, number) for number in range(THREADS // 2)], look, look])
    assert sorted(name for name, _ in failed.names()) == [f"m{number}" for number in range(THREADS // 2)]


def test_a_file_settles_for_all_who_ask_after_its_time_and_for_none_before() -> None:
    settling = Settling()
    signature = Signature(1, 2, 3)

    def ask(number: int) -> None:
        name = f"f{number % 2}"
        for _ in range(ROUNDS * 10):
            assert not settling.settled(name, signature, NOW + SETTLED_SECONDS / 2)

    settling.settled("f0", signature, NOW)
    settling.settled("f1", signature, NOW)
    many(ask)
    assert settling.settled("f0", signature, NOW + SETTLED_SECONDS)
    assert not settling.settled("f1", Signature(9, 9, 9), NOW + SETTLED_SECONDS)
