"""Every message added by any session is in the archive once and whole, or counted as dropped."""

from __future__ import annotations

import mailbox
import time
from pathlib import Path

from mailer.mail.content import MemoryContent
from mailer.spool.archive import Archive
from tests.spool.messages import T0, envelope
from tests.stress.together import THREADS, many

ROUNDS = 250
MANY = 2000  # of each thread: far more than there is room for
DAY = time.strftime("%Y-%m-%d", time.localtime(T0))


def test_every_message_is_there_once_and_whole_or_counted(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 7)
    archive.start()

    def add(number: int) -> None:
        for round_number in range(ROUNDS):
            name = f"{number}-{round_number}"
            archive.add(envelope(), MemoryContent(f"Subject: {name}\r\n\r\n{name}\r\n".encode() * 2))

    many(add)
    archive.close()
    box = mailbox.mbox(tmp_path / "emails" / "archive" / f"{DAY}.mbox")
    subjects = []
    for message in box:
        subjects.append(message["Subject"])
        assert message.get_payload() == f"{subjects[-1]}\nSubject: {subjects[-1]}\n\n{subjects[-1]}\n"
    box.close()
    assert len(set(subjects)) == len(subjects)
    assert len(subjects) + archive.dropped == THREADS * ROUNDS


def test_every_copy_without_room_is_counted(tmp_path: Path) -> None:
    archive = Archive(tmp_path, 7)  # its thread is not started yet, so nothing makes room
    message, content = envelope(), MemoryContent(b"Subject: a\r\n\r\n")
    many(lambda _: [archive.add(message, content) for _ in range(MANY)])  # type: ignore[func-returns-value]
    dropped = archive.dropped
    archive.start()
    archive.close()
    box = mailbox.mbox(tmp_path / "emails" / "archive" / f"{DAY}.mbox")
    assert dropped > 0
    assert len(box) + dropped == THREADS * MANY
    box.close()
