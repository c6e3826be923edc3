"""The files of ``emails/failed``: the hand-over's steps, what is read and what is not."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailer.mail.address import NULL_SENDER, Address
from mailer.mail.content import LARGE_BYTES, Content, MemoryContent
from mailer.mail.envelope import Options, Recipient, State
from mailer.mail.outcome import Reply
from mailer.spool.failed import FailedStore, NotParked, ParkedFile, Settling, Signature, Unreadable
from mailer.spool.places import BadId
from mailer.spool.store import Stored
from tests.spool.messages import DEFERRED, T0, envelope


@pytest.fixture
def store(tmp_path: Path) -> FailedStore:
    (tmp_path / "emails" / "failed").mkdir(parents=True)
    return FailedStore(tmp_path)


def folder(data_dir: Path) -> Path:
    return data_dir / "emails" / "failed"


def read_all(content: Content) -> bytes:
    return b"".join(content.chunks())


def drop_in(data_dir: Path, found: object, name: str = "dropped") -> str:
    text = found if isinstance(found, bytes) else json.dumps(found).encode()
    (folder(data_dir) / f"{name}.json").write_bytes(text)
    return name


def go_file(**changes: object) -> dict[str, object]:
    """A file as the Go program writes it: json.MarshalIndent of ID, From, To, Data."""
    data = base64.b64encode(b"Subject: x\n\nhello\n").decode()
    return {"ID": "1700000000-app@example.com", "From": "app@example.com", "To": ["x@example.org"], "Data": data, **changes}


def message(data: bytes = b"Subject: x\r\n\r\nhello\r\n") -> ParkedFile:
    base = envelope("parked1", to=["x@example.org", '"odd one"@example.org', "done@example.org"], size=len(data))
    first, second, done = base.recipients
    recipients = (
        replace(first, state=State.RETRYING, attempts=3, provider="first:25", reply=DEFERRED, updated_at=T0 + 5),
        replace(second, state=State.RETRYING),
        replace(done, state=State.SUCCESS),
    )
    stored = Stored(replace(base, recipients=recipients), "p", State.RETRYING, T0 + 300, rounds=2)
    return ParkedFile.of(stored, MemoryContent(data))


def test_parked_message_comes_back_as_it_was(store: FailedStore) -> None:
    parked = message()
    store.prepare(parked)
    store.publish("parked1")
    assert store.read("parked1") == parked
    assert [str(r.address) for r in parked.recipients] == ["x@example.org", '"odd one"@example.org']
    assert parked.accepted_at == T0
    assert parked.rounds == 2


@pytest.mark.parametrize("size", [LARGE_BYTES - 2, LARGE_BYTES + 1, 5_000_003])
def test_content_of_any_size_comes_back_whole(store: FailedStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size).replace(b"\r", b".").replace(b"\n", b".")[: size - 2] + b"\r\n"
    store.prepare(message(data))
    store.publish("parked1")
    found = store.read("parked1")
    assert read_all(found.content) == data == read_all(found.content)
    assert found.content.size == len(data)
    assert found.options.has_long_lines
    assert found.options.body == "8BITMIME"
    content = tmp_path / "spool" / "content"
    assert not content.exists() or list(content.iterdir()) == []


def test_file_is_readable_by_the_go_program(store: FailedStore, tmp_path: Path) -> None:
    store.prepare(message())
    store.publish("parked1")
    found = json.loads((folder(tmp_path) / "parked1.json").read_bytes())
    assert list(found)[:3] == ["ID", "From", "To"]
    assert list(found)[-1] == "Data"
    assert found["To"] == ["x@example.org", '"odd one"@example.org']
    assert base64.b64decode(found["Data"], validate=True) == b"Subject: x\r\n\r\nhello\r\n"
    assert found["AcceptedAt"] == "2027-01-15T08:00:00.250000Z"
    assert found["Recipients"][0]["LastReply"] == {"Code": 451, "Enhanced": "4.4.1", "Text": "later"}


def test_prepared_file_is_hidden_until_it_is_published(store: FailedStore, tmp_path: Path) -> None:
    store.prepare(message())
    assert list(store.names()) == []
    assert store.count(1.0) == 0
    assert store.prepared_ids() == ["parked1"]
    assert [path.name for path in folder(tmp_path).iterdir()] == [".parked1.json.tmp"]
    store.publish("parked1")
    store.publish("parked1")
    assert store.prepared_ids() == []
    assert [name for name, _ in store.names()] == ["parked1"]
    assert (folder(tmp_path) / "parked1.json").stat().st_mode & 0o777 == 0o600


def test_discarded_hidden_file_is_gone(store: FailedStore) -> None:
    store.prepare(message())
    store.discard_prepared("parked1")
    store.discard_prepared("parked1")
    assert store.prepared_ids() == []
    with pytest.raises(NotParked):
        store.read("parked1")


def test_hidden_file_counts_where_publishing_it_failed(store: FailedStore) -> None:
    """The record of the hand-over is durable then: to take the file for removed would cancel the message."""
    store.prepare(message())
    assert store.has("parked1")
    assert store.read("parked1") == message()


def test_file_that_cannot_be_written_leaves_nothing(store: FailedStore, tmp_path: Path) -> None:
    class Broken:
        size = 10

        def chunks(self) -> list[bytes]:
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        store.prepare(replace(message(), content=Broken()))  # type: ignore[arg-type] # a list is iterable enough
    assert list(folder(tmp_path).iterdir()) == []
    with pytest.raises(BadId):
        store.prepare(replace(message(), id="../x"))


def test_end_of_a_message_removes_or_buries_its_file(store: FailedStore, tmp_path: Path) -> None:
    for _ in range(2):
        store.prepare(message())
        store.publish("parked1")
        os.utime(folder(tmp_path) / "parked1.json", (1000, 1000))
        store.bury("parked1")
    store.bury("parked1")
    dead = tmp_path / "emails" / "dead"
    assert sorted(path.name for path in dead.iterdir()) == ["parked1.json", "parked1.json.1"]
    assert all(path.stat().st_mtime > 1_000_000 for path in dead.iterdir()), "its days count from the burial"
    store.prepare(message())
    store.publish("parked1")
    store.remove("parked1")
    store.remove("parked1")
    assert not store.has("parked1")


def test_purge_removes_what_has_lain_long_enough(store: FailedStore, tmp_path: Path) -> None:
    for name in ("old", "young"):
        store.quarantine(drop_in(tmp_path, b"?", name), "it is a question mark")
    quarantine = tmp_path / "emails" / "quarantine"
    for path in quarantine.glob("old*"):
        os.utime(path, (T0 - 100, T0 - 100))
    for path in quarantine.glob("young*"):
        os.utime(path, (T0, T0))
    assert store.purge(T0 - 50) == 1
    assert sorted(path.name for path in quarantine.iterdir()) == ["young.json", "young.json.reason.txt"]


def test_quarantine_keeps_the_reason_beside_the_file(store: FailedStore, tmp_path: Path) -> None:
    for _ in range(2):
        store.quarantine(drop_in(tmp_path, b"{", "a b\n$(x)"), "From is no address")
    store.quarantine("nothing", "there is none")
    names = sorted(path.name for path in (tmp_path / "emails" / "quarantine").iterdir())
    assert names == ["a_b_x_.json", "a_b_x_.json.1", "a_b_x_.json.1.reason.txt", "a_b_x_.json.reason.txt"]
    assert (tmp_path / "emails" / "quarantine" / names[-1]).read_text() == "From is no address\n"
    assert list(store.names()) == []


def test_adopted_name_replaces_the_old_one_but_no_other_file(store: FailedStore, tmp_path: Path) -> None:
    drop_in(tmp_path, go_file(), "what ever@x")
    store.adopt_name("what ever@x", "new-id")
    assert [name for name, _ in store.names()] == ["new-id"]
    drop_in(tmp_path, go_file(), "second")
    with pytest.raises(FileExistsError):
        store.adopt_name("second", "new-id")
    with pytest.raises(BadId):
        store.adopt_name("second", "../up")
    assert store.has("second")


def test_count_is_cached_for_a_second(store: FailedStore, tmp_path: Path) -> None:
    drop_in(tmp_path, b"x", "one")
    drop_in(tmp_path, b"x", ".hidden")
    assert store.count(100.0) == 1
    drop_in(tmp_path, b"x", "two")
    assert store.count(100.9) == 1
    assert store.count(101.1) == 2
    assert store.count(50.0) == 2


def test_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    store = FailedStore(tmp_path)
    assert (list(store.names()), store.prepared_ids(), store.count(1.0), store.purge(T0)) == ([], [], 0, 0)
    assert not store.has("x")
    store.publish("x")
    store.discard_prepared("x")
    store.remove("x")
    store.bury("x")
    with pytest.raises(NotParked):
        store.read("x")


def test_name_cannot_lead_out_of_the_folder(store: FailedStore, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text(json.dumps(go_file()))
    for name in ("../../secret", "/etc/passwd", "a\0b", ""):
        with pytest.raises(NotParked):
            store.read(name)


def test_go_file_is_read_with_canonical_line_ends(store: FailedStore, tmp_path: Path) -> None:
    found = store.read(drop_in(tmp_path, go_file()))
    assert found.id == "1700000000-app@example.com"
    assert str(found.sender) == "app@example.com"
    assert [(r.index, str(r.address), r.state) for r in found.recipients] == [(0, "x@example.org", State.RETRYING)]
    assert read_all(found.content) == b"Subject: x\r\n\r\nhello\r\n"
    assert (found.accepted_at, found.rounds, found.options) == (None, 0, Options())


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"a\nb", b"a\r\nb\r\n"),
        (b"a\rb\r", b"a\r\nb\r\n"),
        (b"a\r\r\nb\n\r\n", b"a\r\n\r\nb\r\n\r\n"),
        (b"", b""),
        (b"\xff\n", b"\xff\r\n"),
        (b"x" * 300_000 + b"\r", b"x" * 300_000 + b"\r\n"),
    ],
)
def test_any_line_ends_become_crlf(store: FailedStore, tmp_path: Path, raw: bytes, canonical: bytes) -> None:
    found = store.read(drop_in(tmp_path, go_file(Data=base64.b64encode(raw).decode())))
    assert read_all(found.content) == canonical
    assert found.content.size == len(canonical)


def test_keys_in_other_letter_case_and_missing_lists_are_read(store: FailedStore, tmp_path: Path) -> None:
    data = base64.b64encode(b"x").decode()
    found = store.read(drop_in(tmp_path, {"id": "a", "FROM": "", "to": None, "data": data}))
    assert (found.id, found.sender, found.recipients) == ("a", NULL_SENDER, ())
    assert store.read(drop_in(tmp_path, {"Data": data})).recipients == ()


def test_angle_brackets_are_tolerated_and_repeats_are_one(store: FailedStore, tmp_path: Path) -> None:
    found = store.read(drop_in(tmp_path, go_file(From="<>", To=["<x@example.org>", "x@example.org", "ü@example.org"])))
    assert not found.sender
    assert [str(r.address) for r in found.recipients] == ["x@example.org", "ü@example.org"]
    assert found.options.smtputf8


def test_recipients_status_is_taken_for_those_still_in_to(store: FailedStore, tmp_path: Path) -> None:
    status = [
        {"Address": "x@example.org", "Attempts": 7, "Provider": "p\n", "LastReply": {"Code": 450, "Text": "a\r\nb"}},
        {"Address": "gone@example.org", "Attempts": 9},
        {"Address": "y@example.org", "Attempts": "many", "LastReply": {"Code": 10**9}, "UpdatedAt": "?"},
        "nonsense",
    ]
    found = store.read(drop_in(tmp_path, go_file(To=["x@example.org", "y@example.org"], Recipients=status)))
    first, second = found.recipients
    assert (first.attempts, first.provider, first.reply) == (7, "p", Reply(450, "", "a \nb"))
    assert second == Recipient(1, Address.parse("y@example.org"), State.RETRYING)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"From": "not an address"}, "From"),
        ({"From": "Name <a@example.org>"}, "From"),
        ({"From": 5}, "From is a number"),
        ({"To": ["x@example.org", "y@z ORCPT=x"]}, r"To\[1\]"),
        ({"To": ["x@example.org\r\nRCPT TO:<y@z>"]}, r"To\[0\]"),
        ({"To": "x@example.org"}, "To is a string"),
        ({"To": [""]}, "empty address"),
        ({"To": [None]}, r"To\[0\]"),
        ({"Data": "?"}, "base64"),
        ({"Data": "YQ"}, "base64"),
        ({"Data": "YQ==YQ=="}, "base64"),
        ({"Data": "ü"}, "base64"),
        ({"Data": None}, "Data is missing"),
        ({"Data": ["YQ=="]}, "Data"),
        ({"ID": {}}, "ID"),
        ({"Rounds": True}, "Rounds"),
        ({"Rounds": "2"}, "Rounds"),
        ({"AcceptedAt": "yesterday"}, "AcceptedAt"),
        ({"AcceptedAt": 5}, "AcceptedAt"),
        ({"Options": {"SMTPUTF8": "yes"}}, "Options.SMTPUTF8"),
        ({"Options": {"Body": "9BIT"}}, "Options.Body"),
        ({"Options": []}, "Options"),
        ({"Recipients": {}}, "Recipients"),
    ],
)
def test_what_is_no_message_is_unreadable_and_says_where(
    store: FailedStore, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(Unreadable, match=reason):
        store.read(drop_in(tmp_path, go_file(**change)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\xff",
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b'{"ID": ' + b"9" * 10_000 + b"}",
        b'{"Rounds": NaN, "Data": ""}',
        b'{"Rounds": 1e999, "Data": ""}',
        b"null",
        b"[]",
        b'{"Data": "YQ=="} trailing',
        b'{"From": "\\ud800@x", "Data": "YQ=="}',
    ],
)
def test_hostile_json_is_unreadable_and_nothing_worse(store: FailedStore, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Unreadable):
        store.read(drop_in(tmp_path, data))


def test_huge_numbers_are_cut_to_what_can_be_stored(store: FailedStore, tmp_path: Path) -> None:
    found = store.read(drop_in(tmp_path, go_file(Rounds=10**30, Recipients=[{"Address": "x@example.org", "Attempts": -5}])))
    assert found.rounds == 1_000_000
    assert found.recipients[0].attempts == 0


def test_what_is_no_regular_file_is_unreadable_at_once(store: FailedStore, tmp_path: Path) -> None:
    target = drop_in(tmp_path, go_file(), "good")
    (folder(tmp_path) / "link.json").symlink_to(f"{target}.json")
    (folder(tmp_path) / "dangling.json").symlink_to("nowhere")
    (folder(tmp_path) / "directory.json").mkdir()
    os.mkfifo(folder(tmp_path) / "fifo.json")
    for name in ("link", "dangling", "directory", "fifo"):
        with pytest.raises(Unreadable):
            store.read(name)
        store.quarantine(name, "no regular file")
    assert [name for name, _ in store.names()] == ["good"]


def test_large_file_is_read_within_its_limit_only(tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    store = FailedStore(tmp_path, largest_file_bytes=10_000)
    with pytest.raises(Unreadable, match="at most 10000"):
        store.read(drop_in(tmp_path, go_file(Data="QUFB" * 5000)))


def test_large_file_of_ours_that_was_cut_or_extended_is_unreadable(store: FailedStore, tmp_path: Path) -> None:
    store.prepare(message(b"x" * 5_000_000 + b"\r\n"))
    store.publish("parked1")
    path = folder(tmp_path) / "parked1.json"
    whole = path.read_bytes()
    for spoiled in (whole[:-100], whole[:-3], whole + b"{}", whole[:4_500_000] + b"*" + whole[4_500_001:]):
        path.write_bytes(spoiled)
        with pytest.raises(Unreadable):
            store.read("parked1")
    path.write_bytes(whole)
    assert store.read("parked1").content.size == 5_000_002


def test_large_file_of_ours_is_read_in_little_memory(store: FailedStore) -> None:
    """Several workers read at once, and what a thread has once used stays with it."""
    store.prepare(message(b"x" * 5_000_000 + b"\r\n"))
    store.publish("parked1")
    tracemalloc.start()
    try:
        store.read("parked1")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * 1024 * 1024


def test_names_give_a_signature_that_changes_with_the_file(store: FailedStore, tmp_path: Path) -> None:
    name = drop_in(tmp_path, b"{")
    ((_, first),) = store.names()
    assert store.signature(name) == first
    drop_in(tmp_path, b"{}")
    assert store.signature(name) != first
    assert store.signature("nothing") == Signature(0, 0, 0)
    (folder(tmp_path) / os.fsdecode(b"\xff\xfe.json")).write_bytes(b"x")
    assert len(list(store.names())) == 2


def test_unreadable_counts_only_once_unchanged_for_ten_seconds() -> None:
    settling = Settling()
    first, second = Signature(1, 1, 1), Signature(2, 1, 1)
    assert [settling.settled("a", first, T0 + t) for t in (0, 9.9)] == [False, False]
    assert not settling.settled("a", second, T0 + 9.95)
    assert not settling.settled("a", second, T0 + 19.9)
    assert not settling.settled("b", second, T0 + 19.9)
    assert settling.settled("a", second, T0 + 20)
    assert not settling.settled("a", second, T0 + 20), "once settled it is forgotten: the file is gone then"
    assert not settling.settled("a", second, T0 - 1000)
    assert not settling.settled("a", second, T0 - 995)
    assert settling.settled("a", second, T0 - 990)


def test_settling_forgets_the_longest_unasked() -> None:
    settling = Settling()
    for number in range(10_001):
        settling.settled(str(number), Signature(1, 1, 1), T0)
    assert not settling.settled("0", Signature(1, 1, 1), T0 + 20)
    assert settling.settled("10000", Signature(1, 1, 1), T0 + 20)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_addresses = st.text(max_size=12) | st.sampled_from(["a@b", "<a@b>", "", "ü@b", '"x y"@z', "a@[1.2.3.4]"])
_KEYS = ["ID", "From", "To", "Data", "Recipients", "AcceptedAt", "Rounds", "Options", "data", "TO"]
_files = st.dictionaries(
    st.sampled_from(_KEYS),
    json_values
    | st.lists(_addresses, max_size=3)
    | _addresses
    | st.sampled_from(["YQ==", "", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
    | st.lists(st.fixed_dictionaries({"Address": _addresses, "Attempts": json_values, "LastReply": json_values}), max_size=2),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | _files.map(lambda found: json.dumps(found).encode()))
def test_any_bytes_are_a_message_or_unreadable(store: FailedStore, tmp_path: Path, data: bytes) -> None:
    name = drop_in(tmp_path, data)
    try:
        found = store.read(name)
    except Unreadable:
        return
    assert all(recipient.address for recipient in found.recipients)
    store.prepare(replace(found, id="again"))
    store.publish("again")
    assert store.read("again") == replace(found, id="again", content=MemoryContent(read_all(found.content)))
