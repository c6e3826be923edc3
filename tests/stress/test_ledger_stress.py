"""Attempts in doubt are never more than may be, and every token comes back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from mailer.dispatch.ledger import Ledger, Message
from mailer.dispatch.queue import FairQueue
from mailer.dispatch.schedule import Schedule
from mailer.events import Hub
from mailer.mail.address import Address
from mailer.mail.content import MemoryContent
from mailer.mail.envelope import Envelope, Recipient
from mailer.spool.store import Stored
from tests.dispatch.test_parking import Yard
from tests.dispatch.test_schedule import Ways
from tests.stress.together import many

MOST = 3
ROUNDS = 60


def test_no_more_attempts_are_in_doubt_than_may_be_and_every_token_comes_back(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    schedule = Schedule(yard.spool, FairQueue(10, lambda way: 10), Ways(), lambda: None)
    ledger = Ledger(yard.spool, schedule, yard.parking, Hub(), MOST)
    lock = threading.Lock()  # guards in_doubt
    in_doubt = 0

    def deliver(number: int) -> None:
        nonlocal in_doubt
        for round_number in range(ROUNDS):
            envelope = Envelope(f"m{number}-{round_number}", Address("a", "x"), (Recipient(0, Address("to", "x")),), 1, 0.0)
            message = Message(Stored(envelope, "lane"), MemoryContent(b"x"))
            assert ledger.begin()
            with lock:
                in_doubt += 1
                assert in_doubt <= MOST
            with lock:
                in_doubt -= 1
            ledger.end(message, is_in_doubt=round_number % 3 == 0)
            if round_number % 3 == 0:
                ledger.wait(message, time.time() + 100, "lane", time.time())  # comes back once its record is durable
            elif round_number % 3 == 1:
                ledger.leave(message)

    many(deliver)
    yard.spool.close()  # every record is durable, and whoever waited for it has been told
    assert ledger._tokens.qsize() == MOST
