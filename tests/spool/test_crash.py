"""A process killed with SIGKILL in mid-load: every message that was said to be durable is there afterwards, whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from mailer.mail.envelope import State
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Totals
from tests.spool.messages import T0

SUBMITTER = """
import sys, threading
from dataclasses import replace
from pathlib import Path
from mailer.mail.content import MemoryContent
from mailer.spool.sqlite import SqliteSpool
from tests.spool.messages import *
spool = SqliteSpool.open(Path(sys.argv[1]))
out = threading.Lock()
def say(word, message_id):
    with out:
        sys.stdout.write(f"{word} {message_id}\\n")
        sys.stdout.flush()
def work(thread):
    number = 0
    while True:
        number += 1
        message = envelope(f"{thread}-{number}")
        body = (message.id * (20 if number % 10 else 30000)).encode()
        content = spool.new_content(message.id)
        content.write(body)
        spool.submit(replace(message, size=len(body)), content.finish(), "p")
        say("accepted", message.id)
        if number % 2:
            spool.record(Record(message.id, State.SUCCESS, None, at=T0), lambda id=message.id: say("done", id))
for thread in range(8):
    threading.Thread(target=work, args=(thread,), daemon=True).start()
threading.Event().wait()
"""


def test_nothing_durable_is_lost_by_kill_9(tmp_path: Path) -> None:
    accepted: set[str] = set()
    done: set[str] = set()
    for minimum in (150, 400, 700):
        process = subprocess.Popen([sys.executable, "-c", SUBMITTER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            word, _, message_id = line.strip().partition(" ")
            (accepted if word == "accepted" else done).add(message_id)
            if len(accepted) >= minimum:
                break
        process.kill()
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                word, _, message_id = line.strip().partition(" ")
                (accepted if word == "accepted" else done).add(message_id)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        _check(tmp_path, accepted, done)
        accepted, done = set(), set()
        for leftover in (tmp_path / "spool").glob("mailer.db*"):
            leftover.unlink()


def _check(data_dir: Path, accepted: set[str], done: set[str]) -> None:
    spool = SqliteSpool.open(data_dir)
    states: list[State] = []
    for message_id in accepted:
        stored = spool.find(message_id)
        assert stored is not None, f"{message_id} is lost"
        states.append(stored.state)
        if stored.state is State.SUCCESS:
            assert stored.due_at is None
        else:
            assert message_id not in done, f"the end of {message_id} is lost"
            body = b"".join(spool.content(message_id).chunks())
            assert body == message_id.encode() * (len(body) // len(message_id))
            assert len(body) == stored.envelope.size
    owned = {path.name for path in (data_dir / "spool" / "content").iterdir()}
    for name in owned:
        kept = spool.find(name)
        assert kept is not None
        assert not kept.state.is_final
    totals = spool.totals()
    connection_counts = (totals.queued, totals.successful)
    assert sum(connection_counts) >= len(accepted)
    assert totals.recipients == sum(connection_counts)
    assert totals != Totals()
    assert len(spool.fetch_due(T0, 100_000, (), ())) == totals.queued
    spool.close()
