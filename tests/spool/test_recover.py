"""A damaged database: it goes to quarantine, what is readable goes on, and an interrupted recovery is taken up again."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from mailer.mail.content import MemoryContent
from mailer.spool import recover
from mailer.spool.places import Places
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Holder, SpoolError, Totals
from mailer.spool.tables import PAGE_BYTES
from mailer.window import Bucket
from tests.spool.messages import T0, database, defer, envelope, finish, ids, submit

COUNT = 600
BODY = b"body of a message\r\n" * 60
LARGE = b"large\r\n" * 50_000


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A spool with 600 small messages, one large, one delivered, one parked, and a count; all in the database file."""
    spool = SqliteSpool.open(tmp_path)
    for number in range(COUNT):
        spool.submit(envelope(f"m{number:03}", size=len(BODY)), MemoryContent(BODY), f"lane{number % 3}")
    spool.submit(envelope("large", size=len(LARGE)), MemoryContent(LARGE), "p")
    finish(spool, submit(spool, "delivered"))
    submit(spool, "parked")
    defer(spool, "parked", T0 + 300, holder=Holder.FILE)
    spool.save_usage([Bucket("a@b", 60, 60, 7)])
    spool.close()
    assert not (tmp_path / "spool" / "mailer.db-wal").exists()
    return tmp_path


def flip(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def quarantined(data_dir: Path) -> dict[str, str]:
    """The names in quarantine, each with its reason."""
    folder = data_dir / "emails" / "quarantine"
    names = [path.name for path in folder.iterdir() if not path.name.endswith(".reason.txt")]
    return {name: (folder / f"{name}.reason.txt").read_text() for name in names}


def spoil_indexes(data_dir: Path) -> None:
    """Make every page of an index malformed; tables stay as they are."""
    file = data_dir / "spool" / "mailer.db"
    data = file.read_bytes()
    spoiled = bytearray(data)
    for at in range(0, len(data), PAGE_BYTES):
        if data[at] in {2, 10}:  # the types of index pages
            spoiled[at + 3 : at + 8] = b"\xff\xff\xff\xff\xff"
    file.write_bytes(spoiled)


def check_whole(data_dir: Path) -> None:
    spool = SqliteSpool.open(data_dir)
    found = spool.fetch_due(T0 + 1000, COUNT + 10, (), ())
    assert sorted(ids(found)) == sorted([*(f"m{number:03}" for number in range(COUNT)), "large", "parked"])
    for stored in found:
        if stored.envelope.id.startswith("m"):
            assert b"".join(spool.content(stored.envelope.id).chunks()) == BODY
    assert b"".join(spool.content("large").chunks()) == LARGE
    assert spool.find("delivered") is not None
    assert ids(spool.held_by(Holder.FILE)) == ["parked"]
    assert spool.totals() == Totals(COUNT + 1, 1, 1, 0, COUNT + 3, 1.0, 0)
    assert spool.load_usage("a@b") == [Bucket("a@b", 60, 60, 7)]
    submit(spool)
    spool.close()


def test_garbage_where_the_header_was_loses_nothing(closed: Path) -> None:
    flip(closed / "spool" / "mailer.db", 0, b"garbage!" * (PAGE_BYTES // 8))
    check_whole(closed)
    names = quarantined(closed)
    assert any(name.startswith("mailer-") and "NOTADB" in reason for name, reason in names.items())
    assert not (closed / "spool" / "damaged").exists()
    SqliteSpool.open(closed).close()
    assert quarantined(closed) == names


def test_mark_of_a_run_before_has_the_database_read_anew(closed: Path) -> None:
    (closed / "spool" / "damaged").write_text("malformed page met at run time")
    check_whole(closed)
    assert any("malformed page met" in reason for reason in quarantined(closed).values())


def test_truncated_database_keeps_what_is_left(closed: Path) -> None:
    file = closed / "spool" / "mailer.db"
    with file.open("r+b") as cut:
        cut.truncate(file.stat().st_size // 2)
    spool = SqliteSpool.open(closed)
    found = spool.fetch_due(T0 + 1000, 1000, (), ())
    assert len(found) > COUNT // 5
    whole = 0
    for stored in found:
        if stored.holder is Holder.SPOOL and stored.envelope.id != "large":
            try:
                assert b"".join(spool.content(stored.envelope.id).chunks()) == BODY
                whole += 1
            except SpoolError:
                assert f"{stored.envelope.id}.eml" in quarantined(closed)
    assert whole > COUNT // 5
    submit(spool)
    spool.close()


def test_pages_of_noise_cost_only_what_stood_in_them(closed: Path) -> None:
    file = closed / "spool" / "mailer.db"
    pages = file.stat().st_size // PAGE_BYTES
    for page in range(pages // 2, pages // 2 + 5):
        flip(file, page * PAGE_BYTES, b"\xa5" * PAGE_BYTES)
    (closed / "spool" / "damaged").write_text("noise")
    spool = SqliteSpool.open(closed)
    found = spool.fetch_due(T0 + 1000, 1000, (), ())
    assert len(found) > COUNT * 0.7
    assert spool.totals().queued + spool.totals().parked == len(found)
    submit(spool)
    spool.close()


def test_one_page_of_noise_costs_the_messages_in_it_and_no_other(closed: Path) -> None:
    file = closed / "spool" / "mailer.db"
    data = file.read_bytes()
    leaves = [at for at in range(0, len(data), PAGE_BYTES) if data[at] == 13 and b"app@example.com" in data[at : at + PAGE_BYTES]]
    victim = leaves[len(leaves) // 2]
    in_it = int.from_bytes(data[victim + 3 : victim + 5], "big")  # number of cells, SQLite file format 1.6
    flip(file, victim, b"\xa5" * PAGE_BYTES)
    (closed / "spool" / "damaged").write_text("noise")
    spool = SqliteSpool.open(closed)
    assert len(spool.fetch_due(T0 + 1000, 1000, (), ())) == COUNT + 2 - in_it
    spool.close()


def test_database_cut_to_nothing_leaves_content_files_in_quarantine(closed: Path) -> None:
    (closed / "spool" / "mailer.db").write_bytes(b"")
    spool = SqliteSpool.open(closed)
    assert spool.totals() == Totals()
    assert "large.eml" in quarantined(closed)
    assert (closed / "emails" / "quarantine" / "large.eml").read_bytes() == LARGE
    spool.close()


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\0" + b"\xff" * 10_000, b"\0" * 50_000])
def test_any_file_in_the_databases_place_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "mailer.db").write_bytes(content)
    spool = SqliteSpool.open(tmp_path)
    submit(spool)
    spool.close()
    assert any(name.startswith("mailer-") for name in quarantined(tmp_path))


def test_database_of_another_program_is_set_aside_whole(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    other = database(tmp_path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    spool = SqliteSpool.open(tmp_path)
    submit(spool)
    spool.close()
    (name,) = [name for name in quarantined(tmp_path) if name.endswith(".db")]
    assert "another program" in quarantined(tmp_path)[name]
    theirs = sqlite3.connect(tmp_path / "emails" / "quarantine" / name)
    assert theirs.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    theirs.close()


def test_damage_met_at_run_time_refuses_mail_until_a_restart(closed: Path, caplog: pytest.LogCaptureFixture) -> None:
    (closed / "spool" / "content" / "large").unlink()  # else its row is looked for at start, and the damage found then
    spoil_indexes(closed)
    spool = SqliteSpool.open(closed)
    with caplog.at_level(logging.ERROR), pytest.raises(SpoolError):  # noqa: PT012 - whichever meets it first
        for _ in range(50):
            spool.fetch_due(T0, 1000, (), ())
            submit(spool)
    assert not spool.writable
    assert not spool.accepting
    assert "restart" in caplog.text
    with pytest.raises(SpoolError, match="restart"):
        submit(spool)
    spool.close()
    assert (closed / "spool" / "damaged").exists()
    spool = SqliteSpool.open(closed)
    submit(spool)
    assert spool.writable
    spool.close()


def test_damage_met_while_sweeping_is_recovered_at_once(closed: Path) -> None:
    """Recipients stand in an index, so that nothing can be sent: every message is kept in quarantine, none is lost."""
    spoil_indexes(closed)
    spool = SqliteSpool.open(closed)
    names = quarantined(closed)
    assert {f"m{number:03}.eml" for number in range(COUNT)} < names.keys()
    assert (closed / "emails" / "quarantine" / "m007.eml").read_bytes() == BODY
    assert "app@example.com" in names["m007.eml"]
    assert any((closed / "emails" / "quarantine" / name).read_bytes() == LARGE for name in names if name.startswith("large"))
    submit(spool)
    spool.close()


@pytest.mark.parametrize("stop", ["building", "carried", "moving"])
def test_recovery_cut_at_any_step_is_taken_up_again(closed: Path, stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that stand between two renames, each cut off once."""
    (closed / "spool" / "damaged").write_text("cut")

    class Cut(Exception):
        pass

    def cut(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        if stop == "building":
            patch.setattr(recover, "_merged", cut)
        elif stop == "carried":
            patch.setattr(recover, "_put_in_place", cut)
        else:
            patch.setattr(recover, "sync_directory", lambda path: None if not recovered(closed) else cut())
        with pytest.raises(Cut):
            SqliteSpool.open(closed)
    check_whole(closed)
    left = {path.name for path in (closed / "spool").iterdir()}
    assert left == {"mailer.db", "lock", "reserve", "content"}


def recovered(data_dir: Path) -> bool:
    places = Places(data_dir)
    return not places.carried.exists() and places.database.exists() and places.damaged.exists()
