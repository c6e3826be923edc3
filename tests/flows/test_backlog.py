"""What waited while the program was down is delivered by the one that comes after it."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.flows.parking import counts, in_failed
from tests.support.relay import Relay, eventually, submit
from tests.support.upstream import Disconnect, Upstream

SESSIONS = 4
MESSAGES_A_SESSION = 600


def submit_all(relay: Relay) -> set[str]:
    """Thousands of messages over a few sessions; the texts of all that were answered 250."""
    texts: set[str] = set()

    def session(number: int) -> None:
        with relay.connect() as client:
            for n in range(MESSAGES_A_SESSION):
                submit(client, f"message {number}.{n}")
                texts.add(f"message {number}.{n}")

    threads = [threading.Thread(target=session, args=(n,)) for n in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(texts) == SESSIONS * MESSAGES_A_SESSION
    return texts


def test_backlog_of_thousands_is_delivered_after_a_restart_by_itself(tmp_path: Path) -> None:
    with Upstream() as upstream:
        upstream.on("connect", Disconnect())
        relay = Relay(tmp_path, [upstream], queueSize=100, workerCount=2)
        with relay:
            texts = submit_all(relay)
            delivered, parked, queued = counts(relay)
            assert (delivered, parked + queued) == (0, len(texts))
            assert relay.terminate() == 0
        upstream.on("connect")
        with relay:
            arrived = upstream.wait_for(len(texts), 60)
            eventually(lambda: counts(relay) == (len(texts), 0, 0), "an empty spool")
            # What was parked for the provider's sake is not forgotten; its file goes once the end is on record.
            eventually(lambda: in_failed(relay) == [], "an empty emails/failed")
        assert {m.data.decode().split("\r\n\r\n")[1].strip() for m in arrived} == texts
        assert len(arrived) == len(texts)
