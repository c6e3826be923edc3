"""Sessions that submit without a pause, across crashes of the relay, and the ledger of what they were promised.

    with Load(relay) as load:
        load.wait_for(100)
        load.crash()
    load.check(upstream.messages)

One thread a session; a condition guards the ledger. A session whose connection breaks waits until the relay serves again
and goes on with the next message: what got no 250 was not promised.
"""

from __future__ import annotations

import re
import smtplib
import threading
from collections import Counter
from collections.abc import Iterable

from tests.support.relay import WAIT_SECONDS, Relay, submit
from tests.support.upstream import Transaction

MESSAGES_A_CONNECTION = 25
LARGE_EVERY = 20
"""Every so many messages one is large enough for a content file beside the database."""
_ID = re.compile(rb" id ([0-9a-z]+)")


def text_of(key: str) -> str:
    """The text of a message: no other has it, in whole or in part."""
    number = int(key.rpartition(".")[2])
    lines = 5_000 if number % LARGE_EVERY == 0 else number * 37 % 150
    return "\r\n".join(f"{key} line {n} {'x' * 50}" for n in range(1 + lines))


class Load:
    """See the module. ``promised``: the key of each message that was answered 250, by its id."""

    def __init__(self, relay: Relay, sessions: int = 6) -> None:
        self._relay = relay
        self._news = threading.Condition()  # guards promised
        self.promised: dict[str, str] = {}
        self.crashes = 0
        self._serves = threading.Event()
        self._serves.set()
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._session, args=(n,)) for n in range(sessions)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.set()
        self._serves.set()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)

    def __repr__(self) -> str:
        return f"Load(promised={len(self.promised)}, crashes={self.crashes})"

    def wait_for(self, more: int) -> None:
        """Wait for so many promises more."""
        with self._news:
            wanted = len(self.promised) + more
            assert self._news.wait_for(lambda: len(self.promised) >= wanted, WAIT_SECONDS), f"{self!r}: no more come"

    def crash(self) -> None:
        """kill -9 in the middle of it all, and start again."""
        self._serves.clear()
        self._relay.kill()
        self.crashes += 1
        self._relay.start()
        self._serves.set()

    def check(self, arrived: Iterable[Transaction], most_twice: int) -> int:
        """Nothing promised is lost or mixed up, and at most ``most_twice`` came more than once; how many messages came."""
        keys: dict[str, str] = {}
        times: Counter[str] = Counter()
        for transaction in arrived:
            head, _, body = transaction.data.partition(b"\r\n\r\n")
            found = _ID.search(head)
            assert found is not None, head
            message_id = found[1].decode()
            [recipient] = transaction.recipients
            key = recipient.removeprefix("to").removesuffix("@example.org")
            assert keys.setdefault(message_id, key) == key, f"{message_id} came as {keys[message_id]} and as {key}"
            assert transaction.sender == f"from{key.partition('.')[0]}@example.com"
            assert body.decode() == text_of(key) + "\r\n", f"{message_id} has other bytes than {key}"
            times[message_id] += 1
        assert len(set(keys.values())) == len(keys), "a message came under two ids"
        lost = [message_id for message_id in self.promised if message_id not in keys]
        assert lost == [], f"{len(lost)} of {len(self.promised)} promised messages never came"
        mixed_up = {i: (key, keys[i]) for i, key in self.promised.items() if keys[i] != key}
        assert mixed_up == {}
        twice = times.total() - len(times)
        assert twice <= most_twice, f"{twice} messages came again, at most {most_twice} may"
        return len(keys)

    def _session(self, number: int) -> None:
        count = 0
        while not self._ends.is_set():
            self._serves.wait(WAIT_SECONDS)
            try:
                with self._relay.connect() as client:
                    for _ in range(MESSAGES_A_CONNECTION):
                        if self._ends.is_set() or not self._serves.is_set():
                            break
                        count += 1
                        self._submit(client, number, f"{number}.{count}")
            except (OSError, smtplib.SMTPException):
                continue  # the relay died, or said so

    def _submit(self, client: smtplib.SMTP, number: int, key: str) -> None:
        message_id = submit(client, text_of(key), f"to{key}@example.org", f"from{number}@example.com")
        with self._news:
            self.promised[message_id] = key
            self._news.notify_all()
