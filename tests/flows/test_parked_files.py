"""Files in ``emails/failed`` belong to people too: removed, edited, dropped in, half-written, broken, too old (spec 4)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.flows.parking import arrivals, counts, drop, in_failed, park, retry, retry_until
from tests.support.relay import Relay, eventually, message
from tests.support.upstream import Upstream

ONE_ATTEMPT = {"attemptsPerProvider": 1}
FIRST, SECOND, THIRD = "first@example.org", "second@example.org", "third@example.org"
BUSY = "450 4.2.1 busy"


def path_of(relay: Relay, message_id: str) -> Path:
    return relay.data / "emails" / "failed" / f"{message_id}.json"


def test_file_removed_by_hand_cancels_its_message(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", BUSY)
        relay = Relay(tmp_path, [upstream], retry=ONE_ATTEMPT)
        removed_while_down, removed_while_running = park(relay, [FIRST]), ""
        path_of(relay, removed_while_down).unlink()
        upstream.on("rcpt", {SECOND: BUSY})
        with relay:
            relay.wait_for_line(f'message.cancelled id={removed_while_down} why="554 5.7.0 removed by hand"')
            removed_while_running = relay.send(to=[SECOND])
            relay.wait_for_line(f"message.parked id={removed_while_running}")
            eventually(lambda: in_failed(relay) == [f"{removed_while_running}.json"], "the parked file")
            path_of(relay, removed_while_running).unlink()
            upstream.on("rcpt")
            retry_until(relay, lambda: counts(relay) == (0, 2, 0), "two messages, cancelled")
            relay.wait_for_line(f'message.cancelled id={removed_while_running} why="554 5.7.0 removed by hand"')
            assert relay.files("dead") == []
        assert upstream.messages == []


def test_edited_recipients_take_effect(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", BUSY)
        relay = Relay(tmp_path, [upstream], retry=ONE_ATTEMPT)
        message_id = park(relay, [FIRST, SECOND])
        upstream.on("rcpt")
        with relay:
            path = path_of(relay, message_id)
            path.write_text(json.dumps({**json.loads(path.read_text()), "To": [SECOND, THIRD]}))
            retry_until(relay, lambda: in_failed(relay) == [], "the end of the file")
            relay.wait_for_line(f"message.finished id={message_id} delivered=2 failed=1")
            assert relay.files("dead") == [], "nobody who is owed the message is left"
        assert [arrivals(upstream, recipient) for recipient in (FIRST, SECOND, THIRD)] == [0, 1, 1]


def test_edited_text_takes_effect(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", BUSY)
        relay = Relay(tmp_path, [upstream], retry=ONE_ATTEMPT)
        message_id = park(relay, [FIRST])
        upstream.on("rcpt")
        with relay:
            path = path_of(relay, message_id)
            data = base64.b64encode(message("another text")).decode()
            path.write_text(json.dumps({**json.loads(path.read_text()), "Data": data}))
            retry_until(relay, lambda: in_failed(relay) == [], "the end of the file")
            assert b"another text\r\n" in upstream.wait_for(1)[0].data


def test_files_of_the_go_program_are_taken_up_on_retry_and_bad_or_taken_ids_are_replaced(tmp_path: Path) -> None:
    with Upstream() as upstream, Relay(tmp_path, [upstream], retry=ONE_ATTEMPT) as relay:
        upstream.on("rcpt", {THIRD: BUSY})
        taken = relay.send(to=[THIRD])
        relay.wait_for_line(f"message.parked id={taken}")
        ids = ["1700000000-abc.DEF_1", "../../../etc/passwd", "", taken, "no id\r\nat all"]
        for n, message_id in enumerate(ids):
            drop(relay, f"from the Go program {n}", {"ID": message_id, "From": "from@example.com", "To": [FIRST]}, f"text {n}")
        drop(relay, "null-sender", {"ID": "null-sender", "From": "", "To": [FIRST]}, "text 5")
        retry(relay)
        arrived = upstream.wait_for(6)
        assert {m.data.strip().split(b"\r\n")[-1] for m in arrived} == {b"text %d" % n for n in range(6)}
        assert sorted(m.sender for m in arrived) == ["", *["from@example.com"] * 5]
        eventually(lambda: in_failed(relay) == [f"{taken}.json"], "the file that waits alone")
        relay.wait_for_line("parked.taken_up id=1700000000-abc.DEF_1 ")
        eventually(lambda: counts(relay) == (6, 1, 0), "six messages delivered, one parked")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "data"]


def test_file_that_is_still_being_written_is_waited_for_and_one_that_stays_broken_goes_to_quarantine(tmp_path: Path) -> None:
    """It takes the 10 seconds after which an unreadable file counts."""
    with Upstream() as upstream, Relay(tmp_path, [upstream]) as relay:
        whole = drop(relay, "being-written", {"ID": "being-written", "From": "from@example.com", "To": [FIRST]})
        text = whole.read_text()
        whole.write_text(text[: len(text) // 2])
        drop(relay, "broken", {"ID": "broken", "From": "no address", "To": [FIRST]})
        retry(relay)
        assert in_failed(relay) == ["being-written.json", "broken.json"]
        assert relay.files("quarantine") == []
        whole.write_text(text)
        relay.wait_for_line("parked.unreadable file=broken ")
        upstream.wait_for(1)
        eventually(lambda: in_failed(relay) == [], "an empty folder")
        assert [p.name for p in relay.files("quarantine")] == ["broken.json", "broken.json.reason.txt"]
        assert "From is not an address" in relay.files("quarantine")[1].read_text()
        assert counts(relay) == (1, 0, 0)


def test_message_older_than_max_age_is_given_up_and_a_file_that_is_older_has_one_round_before(tmp_path: Path) -> None:
    with Upstream() as upstream, Relay(tmp_path, [upstream], retry={**ONE_ATTEMPT, "maxAge": 1}) as relay:
        upstream.on("rcpt", {FIRST: BUSY})
        ours = relay.send(to=[FIRST])
        for name, recipient in (("old", FIRST), ("old-but-welcome", SECOND)):
            fields = {"ID": name, "From": "from@example.com", "To": [recipient], "AcceptedAt": "2020-01-01T00:00:00Z"}
            drop(relay, name, fields)
        retry(relay)
        for message_id in (ours, "old"):
            relay.wait_for_line(f"message.given_up id={message_id} .*450")
        assert upstream.wait_for(1)[0].recipients == (SECOND,)
        eventually(lambda: in_failed(relay) == [], "an empty folder")
        assert [p.name for p in relay.files("dead")] == sorted([f"{ours}.json", "old.json"])
        eventually(lambda: counts(relay) == (1, 2, 0), "one message delivered, two given up")


def test_dead_message_moved_back_is_tried_again(tmp_path: Path) -> None:
    with Upstream() as upstream, Relay(tmp_path, [upstream], retry={**ONE_ATTEMPT, "maxAttempts": 1}) as relay:
        upstream.on("rcpt", BUSY)
        message_id = relay.send(to=[FIRST])
        eventually(lambda: len(relay.files("dead")) == 1, "the dead file")
        upstream.on("rcpt")

        def moved_back() -> bool:
            """Again where it was moved before the spool knew that it lay there: then it was put there once more."""
            for dead in relay.files("dead"):
                dead.replace(path_of(relay, message_id))
            return bool(upstream.messages)

        retry_until(relay, moved_back, "the delivery")
        assert [message.recipients for message in upstream.messages] == [(FIRST,)]
        eventually(lambda: (in_failed(relay), relay.files("dead")) == ([], []), "no file of it")
