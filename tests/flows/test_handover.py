"""The hand-over between the spool and ``emails/failed``, with a crash at each of its steps (spec 4).

A message that the crash met before its record was durable may be delivered once more: that is the window of spec 4.
"""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path

import pytest

from tests.flows.parking import arrivals, counts, drop, in_failed, park, retry_until
from tests.support.relay import Relay, eventually
from tests.support.upstream import Stall, Upstream

ONE_ATTEMPT = {"attemptsPerProvider": 1}
FIRST, SECOND = "first@example.org", "second@example.org"
BUSY = "450 4.2.1 busy"
HEARD_FIRST = Stall(BUSY)
"""The crash that follows comes once the client has heard its 250 and the upstream is released."""
ID = "parked-before"


def dies_of_a_file(relay: Relay, step: str, to: list[str]) -> None:
    """A start at which a parked message is due at once, and the crash that comes of it."""
    drop(relay, ID, {"ID": ID, "From": "from@example.com", "To": to})
    relay.launch(dies=step)
    expect_death(relay)


def expect_death(relay: Relay) -> None:
    assert relay.wait() == -signal.SIGKILL, relay.output


@pytest.mark.parametrize("step", ["before prepare", "within prepare", "after prepare", "after parked", "after publish"])
def test_crash_while_a_message_is_parked_neither_loses_nor_forgets_it(tmp_path: Path, step: str) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", {SECOND: HEARD_FIRST})
        relay = Relay(tmp_path, [upstream], retry=ONE_ATTEMPT)
        with relay.start(dies=step):
            message_id = relay.send(to=[FIRST, SECOND])
            upstream.release()
            expect_death(relay)
            is_recorded = step in {"after parked", "after publish"}
            relay.start()
            if not is_recorded:
                relay.wait_for_line(f"message.parked id={message_id} owed=1")
            eventually(lambda: in_failed(relay) == [f"{message_id}.json"], "the parked file alone")
            assert relay.parked()[0]["To"] == [SECOND]
            eventually(lambda: counts(relay) == (0, 1, 0), "one message, parked")
            upstream.on("rcpt")
            retry_until(relay, lambda: (in_failed(relay), counts(relay)) == ([], (1, 0, 0)), "one message, delivered")
        assert (arrivals(upstream, FIRST), arrivals(upstream, SECOND)) == (1 if is_recorded else 2, 1)


@pytest.mark.parametrize("step", ["within prepare", "after prepare", "after parked", "after publish"])
def test_crash_while_a_message_is_parked_once_more_keeps_the_file_that_its_record_means(tmp_path: Path, step: str) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", {SECOND: BUSY})
        relay = Relay(tmp_path, [upstream], retry=ONE_ATTEMPT)
        dies_of_a_file(relay, step, [FIRST, SECOND])
        upstream.on("rcpt", BUSY)
        with relay:
            is_recorded = step in {"after parked", "after publish"}
            eventually(lambda: in_failed(relay) == [f"{ID}.json"], "the parked file alone")
            assert relay.parked()[0]["To"] == ([SECOND] if is_recorded else [FIRST, SECOND])
            upstream.on("rcpt")
            retry_until(relay, lambda: (in_failed(relay), counts(relay)) == ([], (1, 0, 0)), "one message, delivered")
        assert (arrivals(upstream, FIRST), arrivals(upstream, SECOND)) == (1 if is_recorded else 2, 1)


@pytest.mark.parametrize("step", ["before finished", "after finished", "after remove", "after cleared"])
def test_crash_while_a_delivered_message_leaves_its_file_ends_the_same(tmp_path: Path, step: str) -> None:
    with Upstream() as upstream:
        relay = Relay(tmp_path, [upstream], retry=ONE_ATTEMPT)
        dies_of_a_file(relay, step, [FIRST])
        with relay:
            retry_until(relay, lambda: (in_failed(relay), counts(relay)) == ([], (1, 0, 0)), "one message, delivered")
            assert relay.terminate() == 0
        assert arrivals(upstream, FIRST) == (2 if step == "before finished" else 1)


@pytest.mark.parametrize("step", ["before finished", "after finished", "after bury", "after cleared"])
def test_crash_while_a_message_is_given_up_buries_it_once(tmp_path: Path, step: str) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", BUSY)
        relay = Relay(tmp_path, [upstream], retry={**ONE_ATTEMPT, "maxAttempts": 1})
        dies_of_a_file(relay, step, [FIRST])
        with relay:
            retry_until(relay, lambda: (in_failed(relay), counts(relay)) == ([], (0, 1, 0)), "one message, given up")
            eventually(lambda: [p.name for p in relay.files("dead")] == [f"{ID}.json"], "the dead file")
            assert json.loads(relay.files("dead")[0].read_text())["To"] == [FIRST]


@pytest.mark.parametrize("step", ["after prepare", "after finished", "after publish", "after bury"])
def test_crash_while_a_message_is_given_up_from_the_spool_buries_it_once(tmp_path: Path, step: str) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", {SECOND: HEARD_FIRST})
        relay = Relay(tmp_path, [upstream], retry={**ONE_ATTEMPT, "maxAttempts": 1})
        with relay.start(dies=step):
            message_id = relay.send("kept", to=[FIRST, SECOND])
            upstream.release()
            expect_death(relay)
            relay.start()
            eventually(lambda: [p.name for p in relay.files("dead")] == [f"{message_id}.json"], "the dead file")
            eventually(lambda: (in_failed(relay), counts(relay)) == ([], (0, 1, 0)), "one message, given up")
            dead = json.loads(relay.files("dead")[0].read_text())
            assert dead["To"] == [SECOND]
            assert b"kept\r\n" in base64.b64decode(dead["Data"])


def test_file_of_a_message_that_is_given_up_names_only_who_never_got_it(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", BUSY)
        relay = Relay(tmp_path, [upstream], retry={**ONE_ATTEMPT, "maxAttempts": 2})
        park(relay, [FIRST, SECOND])
        upstream.on("rcpt", {SECOND: "550 5.1.1 no such user"})
        with relay:
            retry_until(relay, lambda: len(relay.files("dead")) == 1, "the dead file")
            assert json.loads(relay.files("dead")[0].read_text())["To"] == [SECOND]


def test_no_file_is_left_of_a_message_whose_owed_recipients_all_got_it(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("rcpt", {FIRST: "550 5.1.1 no such user", SECOND: BUSY})
        relay = Relay(tmp_path, [upstream], retry=ONE_ATTEMPT)
        park(relay, [FIRST, SECOND])
        upstream.on("rcpt")
        with relay:
            retry_until(relay, lambda: in_failed(relay) == [], "the end of the parked file")
            assert relay.files("dead") == []
            assert counts(relay) == (0, 1, 0), "the message has failed: one of its recipients has"


@pytest.mark.parametrize("step", ["after adopt_name", "before adopt", "after adopt"])
def test_crash_while_a_file_is_taken_up_delivers_it_once(tmp_path: Path, step: str) -> None:
    with Upstream() as upstream:
        relay = Relay(tmp_path, [upstream])
        drop(relay, "of another program", {"ID": "no id/at all", "From": "from@example.com", "To": [FIRST]})
        relay.launch(dies=step)
        expect_death(relay)
        with relay:
            upstream.wait_for(1)
            eventually(lambda: (in_failed(relay), counts(relay)) == ([], (1, 0, 0)), "one message, delivered")
            assert relay.terminate() == 0
        assert arrivals(upstream, FIRST) == 1
