"""The listening process's side of a message: what is said to clients is what the main process has said."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest

from mailer.front.channel import Channel
from mailer.front.hearing import RemoteIntake
from mailer.mail.content import MemoryContent
from mailer.spool.places import Places
from mailer.spool.store import SpoolError
from tests.spool.messages import envelope

WAIT_SECONDS = 30.0


def test_message_under_way_when_the_main_process_ends_is_neither_accepted_nor_refused(tmp_path: Path) -> None:
    """It may have been stored: a refusal would have the client send it again."""
    ours, theirs = Channel.pair()
    intake, message = RemoteIntake(ours, Places(tmp_path)), envelope()
    said: queue.SimpleQueue[SpoolError | None] = queue.SimpleQueue()

    def accept() -> None:
        try:
            intake.accept(message, MemoryContent(b"hello"))
            said.put(None)
        except SpoolError as error:
            said.put(error)

    session = threading.Thread(target=accept)
    session.start()
    assert theirs.receive() is not None  # it has been handed over
    theirs.close()
    intake.lost()
    assert said.empty()
    intake.settled([(message.id, None)])  # only a word about it lets the session go
    assert said.get(timeout=WAIT_SECONDS) is None
    session.join(WAIT_SECONDS)
    with pytest.raises(SpoolError):
        intake.accept(envelope(), MemoryContent(b"never handed over"))
    ours.close()
