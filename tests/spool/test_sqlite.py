"""What the spool promises in ``store.Store``, on a real database."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.mail.address import Address
from mailer.mail.content import LARGE_BYTES, MemoryContent
from mailer.mail.envelope import Options, Recipient, State
from mailer.mail.outcome import Reply
from mailer.spool.lock import SpoolLocked
from mailer.spool.places import BadId
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import ContentLost, Holder, Record, SpoolError, Stored, Totals
from mailer.window import Bucket
from tests.spool.messages import (
    DEFERRED,
    DELIVERED,
    T0,
    WAIT_SECONDS,
    database,
    defer,
    envelope,
    finish,
    ids,
    record,
    submit,
)

LARGE = b"a line of a large message, which goes to a file\r\n" * 8000


def test_submitted_message_is_found_with_all_that_was_said(spool: SqliteSpool) -> None:
    options = Options("8BITMIME", True, True, False, "127.0.0.1", "me")
    to = ["a@b.example", '"x y"@[tag:a@b]', "z@[127.0.0.1]"]
    message = envelope(sender="ü@exämple.org", to=to, at=T0 + 3e-7, options=options)
    spool.submit(message, MemoryContent(b"12345"), "lane 1")
    stored = spool.find(message.id)
    assert stored == Stored(message, "lane 1", due_at=T0 + 3e-7)
    assert b"".join(spool.content(message.id).chunks()) == b"12345"


def test_message_survives_a_restart(tmp_path: Path) -> None:
    first = SqliteSpool.open(tmp_path)
    message_id = submit(first)
    first.close()
    second = SqliteSpool.open(tmp_path)
    assert ids(second.fetch_due(T0, 10, (), ())) == [message_id]
    assert b"".join(second.content(message_id).chunks()) == b"hi\r\n."
    second.close()


def test_id_that_is_no_file_name_is_refused(spool: SqliteSpool) -> None:
    for bad in ("../x", "..", "", "a/b", "x" * 65, "a~", "é"):
        with pytest.raises(BadId):
            spool.submit(replace(envelope(), id=bad), MemoryContent(b"x"), "p")
        with pytest.raises(BadId):
            spool.new_content(bad)
        assert spool.find(bad) is None


def test_same_id_twice_fails_alone(spool: SqliteSpool) -> None:
    """A message that cannot be stored must not take the others of its group with it."""
    taken = submit(spool, "taken")
    errors: list[str] = []

    def try_again() -> None:
        try:
            submit(spool, taken)
        except SpoolError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=try_again) for _ in range(4)]
    threads += [threading.Thread(target=submit, args=(spool, f"other{i}")) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert len(errors) == 4
    assert all("taken" in error for error in errors)
    assert sorted(ids(spool.fetch_due(T0, 100, (), ()))) == sorted(["taken", *(f"other{i}" for i in range(12))])
    assert spool.totals().queued == 13
    assert spool.writable


def test_finished_message_keeps_its_status_and_loses_its_content(spool: SqliteSpool) -> None:
    message_id = submit(spool)
    finish(spool, message_id)
    stored = spool.find(message_id)
    assert stored is not None
    assert (stored.state, stored.due_at, stored.finished_at) == (State.SUCCESS, None, T0 + 1)
    recipient = stored.envelope.recipients[0]
    assert (recipient.state, recipient.attempts, recipient.provider, recipient.reply) == (State.SUCCESS, 1, "first:25", DELIVERED)
    with pytest.raises(ContentLost):
        spool.content(message_id)
    assert spool.fetch_due(T0 + 1e6, 10, (), ()) == []


def test_large_content_is_a_file_until_the_message_is_finished(spool: SqliteSpool, tmp_path: Path) -> None:
    message = envelope("big", size=len(LARGE))
    writer = spool.new_content("big")
    for start in range(0, len(LARGE), 1000):
        writer.write(LARGE[start : start + 1000])
    assert writer.size == len(LARGE) > LARGE_BYTES
    spool.submit(message, writer.finish(), "p")
    file = tmp_path / "spool" / "content" / "big"
    assert file.read_bytes() == LARGE
    content = spool.content("big")
    assert b"".join(content.chunks()) == LARGE == b"".join(content.chunks())
    finish(spool, "big")
    spool.close()  # the file goes after the commit
    assert not file.exists()


def test_large_content_is_on_disk_before_its_name_is(spool: SqliteSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the calls is all that shows: only a power cut would show the rest."""
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(descriptor: int) -> None:
        order.append("fsync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def watched_rename(path: Path, target: Path) -> Path:
        order.append("rename")
        return rename(path, target)

    writer = spool.new_content("big")
    writer.write(LARGE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", watched_fsync)
        patch.setattr(Path, "rename", watched_rename)
        writer.finish()
    assert order == ["fsync file", "rename", "fsync directory"]


def test_large_content_from_elsewhere_is_copied(spool: SqliteSpool, tmp_path: Path) -> None:
    message = envelope("big", size=len(LARGE))
    spool.submit(message, MemoryContent(LARGE), "p")
    assert (tmp_path / "spool" / "content" / "big").read_bytes() == LARGE
    with pytest.raises(SpoolError):
        spool.submit(message, MemoryContent(LARGE), "p")


def test_discarded_content_leaves_nothing(spool: SqliteSpool, tmp_path: Path) -> None:
    folder = tmp_path / "spool" / "content"
    for is_finished in (False, True):
        writer = spool.new_content("gone")
        writer.write(LARGE)
        assert len(list(folder.iterdir())) == 1
        if is_finished:
            writer.finish()
        writer.discard()
        writer.discard()
        assert list(folder.iterdir()) == []


def test_sending_is_never_stored(spool: SqliteSpool) -> None:
    message_id = submit(spool)
    sending = Recipient(0, Address.parse("x@example.org"), State.SENDING, 2)
    record(spool, Record(message_id, State.SENDING, T0, (sending,), at=T0))
    stored = spool.find(message_id)
    assert stored is not None
    assert stored.state is State.PENDING
    assert stored.envelope.recipients[0].state is State.RETRYING


def test_records_are_done_in_their_order_and_the_last_word_stands(spool: SqliteSpool) -> None:
    message_id = submit(spool)
    order: list[int] = []
    done = threading.Event()
    for number in range(1000):
        change = Record(message_id, State.RETRYING, T0 + number, rounds=number, progress=str(number), at=T0)
        spool.record(change, lambda number=number: order.append(number))  # type: ignore[misc] # a default is not Callable[[], None]
    spool.record(Record(message_id, State.RETRYING, T0 + 5000, rounds=1000, at=T0), done.set)
    assert done.wait(WAIT_SECONDS)
    assert order == list(range(1000))
    stored = spool.find(message_id)
    assert stored is not None
    assert (stored.rounds, stored.due_at, stored.progress) == (1000, T0 + 5000, "")


def test_fault_in_a_callback_stops_neither_the_thread_nor_the_callbacks_behind_it(spool: SqliteSpool) -> None:
    message_id = submit(spool)
    done = threading.Event()

    def fault() -> None:
        raise ZeroDivisionError

    spool.record(Record(message_id, State.RETRYING, T0, at=T0), fault)
    spool.record(Record(message_id, State.RETRYING, T0, at=T0), done.set)
    assert done.wait(WAIT_SECONDS)
    submit(spool)


def test_record_may_add_a_recipient_and_change_the_lane(spool: SqliteSpool) -> None:
    message_id = submit(spool)
    added = Recipient(1, Address.parse("new@example.org"), State.RETRYING)
    record(spool, Record(message_id, State.RETRYING, T0, (added,), lane="other", at=T0))
    record(spool, Record(message_id, State.RETRYING, T0, at=T0))
    stored = spool.find(message_id)
    assert stored is not None
    assert [str(r.address) for r in stored.envelope.recipients] == ["x@example.org", "new@example.org"]
    assert stored.lane == "other"
    assert spool.lanes() == ["other"]
    assert spool.totals().recipients == 2


def test_record_of_a_forgotten_message_is_done_and_harms_nobody(spool: SqliteSpool) -> None:
    finish(spool, "never-was")
    assert spool.find("never-was") is None
    assert spool.totals() == Totals()


def test_hostile_values_are_stored_as_far_as_they_go(spool: SqliteSpool) -> None:
    """A value that SQLite cannot bind would block every record behind it for ever."""
    message_id = submit(spool)
    reply = Reply(250, "", "lone \udc80 and nul \0")
    recipient = Recipient(0, Address.parse("x@example.org"), State.RETRYING, 10**30, "p\udcff", reply, float("nan"))
    record(
        spool,
        Record(message_id, State.RETRYING, float("nan"), (recipient,), 10**40, "\ud800", ("w\udc81",), lane="\udc82", at=T0),
    )
    record(spool, Record(message_id, State.RETRYING, float("inf"), rounds=-5, at=T0))
    stored = spool.find(message_id)
    assert stored is not None
    assert stored.due_at is not None
    assert stored.due_at > T0
    assert stored.envelope.recipients[0].attempts == 2**31 - 1
    assert spool.writable


def test_totals_follow_each_message_through_its_life_and_a_restart(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    done, parked, failed = (submit(spool) for _ in range(3))
    report = envelope(options=Options(is_report=True))
    spool.submit(report, MemoryContent(b"12345"), "p")
    assert spool.totals() == Totals(queued=3, recipients=3, queued_reports=1)
    finish(spool, done, at=T0 + 7)
    defer(spool, parked, T0 + 300, holder=Holder.FILE)
    finish(spool, failed, state=State.FAILED)
    finish(spool, report.id)
    expected = Totals(queued=0, parked=1, successful=1, failed=1, recipients=3, processing_seconds=7.0)
    assert spool.totals() == expected
    spool.close()
    spool = SqliteSpool.open(tmp_path)
    assert spool.totals() == expected
    record(spool, Record(parked, State.SUCCESS, None, holder=Holder.FILE_TO_CLEAR, at=T0 + 10))
    record(spool, Record(parked, State.SUCCESS, None, holder=Holder.SPOOL, at=T0 + 99))
    assert spool.totals() == Totals(0, 0, 2, 1, 3, 17.0, 0)
    assert spool.purge(T0 + 1000) == 4
    assert spool.totals() == Totals(0, 0, 2, 1, 3, 17.0, 0)
    spool.close()


def test_parked_message_drops_its_content_and_stays_due(spool: SqliteSpool) -> None:
    message_id = submit(spool)
    defer(spool, message_id, T0 + 300, holder=Holder.FILE)
    with pytest.raises(ContentLost):
        spool.content(message_id)
    assert ids(spool.held_by(Holder.FILE)) == [message_id]
    assert ids(spool.fetch_due(T0 + 300, 10, (), ())) == [message_id]


def test_adopted_file_is_a_message_unless_its_id_is_known(spool: SqliteSpool) -> None:
    stored = Stored(envelope("dropped-in"), "p", State.RETRYING, T0 + 5, rounds=2, waits_for=("a",), holder=Holder.FILE)
    assert spool.adopt(stored)
    assert not spool.adopt(stored)
    assert spool.find("dropped-in") == stored
    assert spool.totals() == Totals(parked=1, recipients=1)
    assert spool.make_due(T0, "a") == 1


def test_held_by_reads_more_than_a_piece(spool: SqliteSpool) -> None:
    for number in range(450):
        spool.adopt(Stored(envelope(f"f{number:03}"), "p", State.RETRYING, T0, holder=Holder.FILE))
    submit(spool, "in-spool")
    assert ids(spool.held_by(Holder.FILE)) == [f"f{number:03}" for number in range(450)]
    assert ids(spool.held_by(Holder.SPOOL)) == ["in-spool"]
    assert ids(spool.held_by(Holder.FILE_TO_CLEAR)) == []


def test_make_due_wakes_what_waits_for_a_way_or_all_that_is_parked(spool: SqliteSpool) -> None:
    for name, ways in (("one", ("a",)), ("two", ("a", "b")), ("three", ("b",))):
        submit(spool, name)
        record(spool, Record(name, State.RETRYING, T0 + 900, waits_for=ways, at=T0))
    submit(spool, "parked")
    defer(spool, "parked", T0 + 900, holder=Holder.FILE)
    assert spool.fetch_due(T0 + 1, 10, (), ()) == []
    assert spool.make_due(T0 + 1, "a") == 2
    assert sorted(ids(spool.fetch_due(T0 + 1, 10, (), ()))) == ["one", "two"]
    assert spool.make_due(T0 + 1, "a") == 0
    assert spool.make_due(T0 + 1, "nobody") == 0
    assert spool.make_due(T0 + 1) == 1
    assert sorted(ids(spool.fetch_due(T0 + 1, 10, (), ()))) == ["one", "parked", "two"]
    woken = spool.find("two")
    assert woken is not None
    assert woken.waits_for == ()


def test_finished_message_waits_for_nobody(spool: SqliteSpool) -> None:
    message_id = submit(spool)
    record(spool, Record(message_id, State.RETRYING, T0 + 900, waits_for=("a",), at=T0))
    finish(spool, message_id)
    assert spool.make_due(T0 + 1, "a") == 0
    stored = spool.find(message_id)
    assert stored is not None
    assert stored.state is State.SUCCESS


def test_purge_forgets_old_ends_only(spool: SqliteSpool) -> None:
    old, young, waiting, uncleared = (submit(spool) for _ in range(4))
    finish(spool, old, at=T0)
    finish(spool, young, at=T0 + 100)
    record(spool, Record(uncleared, State.FAILED, None, holder=Holder.FILE_TO_CLEAR, at=T0))
    assert spool.purge(T0 + 50) == 1
    assert spool.find(old) is None
    assert all(spool.find(kept) is not None for kept in (young, waiting, uncleared))


def test_usage_is_read_back_before_and_after_its_commit(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    first = [Bucket("a", 60, 120, 3), Bucket("a", 1200, 0, 3)]
    spool.save_usage(first)
    assert sorted(spool.load_usage("a"), key=lambda b: b.span) == first
    spool.save_usage([Bucket("a", 60, 180, 4), Bucket("b", 60, 180, 1)])
    spool.close()
    spool = SqliteSpool.open(tmp_path)
    assert spool.load_usage("a") == [Bucket("a", 60, 180, 4)]
    assert spool.load_usage("b") == [Bucket("b", 60, 180, 1)]
    assert spool.load_usage("c") == []
    spool.close()


def test_closed_spool_refuses_and_has_written_what_was_queued(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    message_id = submit(spool)
    spool.record(Record(message_id, State.RETRYING, T0 + 60, at=T0), lambda: None)
    spool.close()
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        submit(spool)
    with pytest.raises(SpoolError, match="closed"):
        spool.record(Record(message_id, State.SUCCESS, None), lambda: None)
    with pytest.raises(SpoolError, match="closed"):
        spool.fetch_due(T0, 1, (), ())
    again = SqliteSpool.open(tmp_path)
    stored = again.find(message_id)
    assert stored is not None
    assert stored.due_at == T0 + 60
    again.close()


def test_second_instance_is_refused_and_told_who_is_first(spool: SqliteSpool, tmp_path: Path) -> None:
    with pytest.raises(SpoolLocked, match=rf"process {os.getpid()} .*{tmp_path}"):
        SqliteSpool.open(tmp_path)
    submit(spool)


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        spool = SqliteSpool.open(tmp_path / "data")
        spool.submit(envelope("big", size=len(LARGE)), MemoryContent(LARGE), "p")
        found = {path.name: path.stat().st_mode & 0o777 for path in [*(tmp_path / "data").rglob("*"), tmp_path / "data"]}
        spool.close()
    finally:
        os.umask(old)
    assert {"mailer.db", "mailer.db-wal", "mailer.db-shm", "lock", "reserve", "big"} < found.keys()
    assert {name: mode for name, mode in found.items() if mode not in {0o600, 0o700}} == {}


def test_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    SqliteSpool.open(tmp_path).close()
    connection = database(tmp_path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    before = (tmp_path / "spool" / "mailer.db").read_bytes()
    with pytest.raises(SpoolError, match=r"newer mailer .*version 7"):
        SqliteSpool.open(tmp_path)
    assert (tmp_path / "spool" / "mailer.db").read_bytes() == before


def test_orphans_of_a_crash_are_swept_and_owned_files_stay(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    spool.submit(envelope("kept", size=len(LARGE)), MemoryContent(LARGE), "p")
    spool.close()
    folder = tmp_path / "spool" / "content"
    for name in ("orphan", "draft~", "kept~"):
        (folder / name).write_bytes(b"x")
    spool = SqliteSpool.open(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert b"".join(spool.content("kept").chunks()) == LARGE
    spool.close()


def test_damaged_body_goes_to_quarantine_with_its_reason(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    hurt, whole = submit(spool), submit(spool)
    spool.close()
    connection = database(tmp_path)
    connection.execute("UPDATE bodies SET data = x'6869210d0a' WHERE seq = (SELECT seq FROM messages WHERE id = ?)", (hurt,))
    connection.close()
    spool = SqliteSpool.open(tmp_path)
    with pytest.raises(ContentLost, match="damaged"):
        spool.content(hurt)
    kept = tmp_path / "emails" / "quarantine" / f"{hurt}.eml"
    assert kept.read_bytes() == b"hi!\r\n"
    assert hurt in kept.with_name(kept.name + ".reason.txt").read_text()
    assert b"".join(spool.content(whole).chunks()) == b"hi\r\n."
    assert spool.writable
    spool.close()


@pytest.mark.parametrize("damage", ["cut", "missing", "changed"])
def test_damaged_content_file_never_passes_for_whole(spool: SqliteSpool, tmp_path: Path, damage: str) -> None:
    spool.submit(envelope("big", size=len(LARGE)), MemoryContent(LARGE), "p")
    file = tmp_path / "spool" / "content" / "big"
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(LARGE[:-1])
    else:
        file.write_bytes(LARGE[:-100] + b"?" + LARGE[-99:])
        read: list[bytes] = []
        with pytest.raises(OSError, match="damaged"):
            read.extend(spool.content("big").chunks())
        assert sum(map(len, read)) < len(LARGE)
    with pytest.raises(ContentLost):
        spool.content("big")
    assert "big" in (tmp_path / "emails" / "quarantine" / "big.eml.reason.txt").read_text()


def test_options_are_readable_json_for_whoever_looks(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    submit(spool)
    spool.close()
    connection = database(tmp_path)
    (text,) = connection.execute("SELECT options FROM messages").fetchone()
    connection.close()
    assert json.loads(text) == {"client": "127.0.0.1"}


def test_deferred_reply_is_kept(spool: SqliteSpool) -> None:
    message_id = submit(spool)
    defer(spool, message_id, T0 + 60)
    stored = spool.find(message_id)
    assert stored is not None
    assert stored.envelope.owed[0].reply == DEFERRED


def test_what_is_due_later_than_any_wait_is_brought_forward_and_its_round_begins_anew(spool: SqliteSpool) -> None:
    late, later, other = (submit(spool, lane=lane) for lane in ("a", "a", "b"))
    for message_id, due_at in ((late, T0 + 50), (later, T0 + 500), (other, T0 + 600)):
        record(spool, Record(message_id, State.RETRYING, due_at, progress='{"batch":1}', at=T0))
    assert spool.bring_forward(T0 + 1, T0 + 50) == 2
    assert ids(spool.fetch_due(T0 + 1, 10, set(), set())) == [later, other]
    rows = [spool.find(message_id) for message_id in (late, later, other)]
    assert [row and (row.due_at, row.progress) for row in rows] == [(T0 + 50, '{"batch":1}'), (T0 + 1, ""), (T0 + 1, "")]
    assert spool.bring_forward(T0 + 1, T0 + 50) == 0


def test_ready_and_finished_messages_are_not_brought_forward(spool: SqliteSpool) -> None:
    submit(spool)
    finish(spool, submit(spool))
    assert spool.bring_forward(T0 - 1000, T0 - 1000) == 0
