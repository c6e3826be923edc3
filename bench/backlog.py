"""A spool with very many messages that wait, made in a minute instead of an hour.

    python -m bench.backlog DATA_DIR COUNT SIZE_BYTES

Run in a process of its own (``waiting_mailer`` does), it writes rows into the spool as its writer does, thousands a
transaction, instead of sending each message over SMTP. All are for ``DOMAIN``, whose only provider refuses connections:
its breaker opens, and they wait in the spool without a round, as mail does behind a provider that is down.
Fails with ``SpoolError``.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from bench.call import ROOT, Call, say
from bench.subjects import Mailer, provider
from bench.traffic import BenchError
from mailer.mail.address import Address
from mailer.mail.envelope import Envelope, Recipient, new_message_id
from mailer.spool import rows, tables
from mailer.spool.batch import ArrivalRows
from mailer.spool.ledger import Ledger
from mailer.spool.opening import open_database
from mailer.spool.store import Stored

DOMAIN = "waiting.test"
PROVIDER = "down"
SENDERS = 1000
GROUP_MESSAGES = 5000
LOG_BYTES = 64 * 1024 * 1024
WAITING = 1_000_000
SIZE_BYTES = 4096


def waiting(call: Call) -> int:
    """How many messages wait in ``waiting_mailer``'s spool."""
    return call.size(WAITING, 20_000)


@contextlib.contextmanager
def waiting_mailer(call: Call, upstream_port: int, folder: Path | None = None) -> Iterator[Mailer]:
    """A mailer, not yet started, that delivers to ``upstream_port`` what is not for ``DOMAIN``.

    Its spool holds ``waiting(call)`` messages, the same ones in all figures of a call; or, with a ``folder``, none.
    """
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused, and nobody else gets the port
        down = {"name": PROVIDER, "host": "127.0.0.1", "port": refusing.getsockname()[1], "domains": [DOMAIN]}
        providers = [provider(upstream_port, domains=["bench.test"]), down]
        mailer = Mailer(call.program, folder or _waiting_folder(call), providers)
        mailer.waiting = 0 if folder else waiting(call)
        yield mailer


def _waiting_folder(call: Call) -> Path:
    """The folder of the full spool, made at the first call. Raises BenchError."""
    folder = call.folder / "waiting"
    if not folder.exists():
        begun = time.monotonic()
        command: list[str | Path] = ["env", "-C", ROOT, sys.executable, "-m", "bench.backlog"]
        command += [folder / "data", str(waiting(call)), str(SIZE_BYTES)]
        (folder / "data").mkdir(parents=True)
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"the spool was not filled: {done.stderr.decode(errors='replace')[-1000:]}")
        say(f"  {waiting(call)} messages put into a spool in {time.monotonic() - begun:.0f} s")
    return folder


def fill(data_dir: Path, count: int, size_bytes: int) -> None:
    """Add so many messages that are due and wait for the provider."""
    opened = open_database(data_dir)
    ledger = Ledger(lambda: tables.connect_writer(opened.places.database, LOG_BYTES), lambda: None)
    head = b"From: sender@bench.test\r\nSubject: waiting\r\nMessage-ID: <waiting@bench.test>\r\n\r\n"
    content = head + (b"X" * 78 + b"\r\n") * (size_bytes // 80)
    checksum = zlib.crc32(content)
    try:
        for start in range(0, count, GROUP_MESSAGES):
            numbers = range(start, min(count, start + GROUP_MESSAGES))
            arrivals = [_arrival(number, content, checksum) for number in numbers]
            ledger.write(lambda batch, arrivals=arrivals: batch.insert(arrivals))  # type: ignore[misc]
    finally:
        ledger.close()
        opened.lock.release()


def _arrival(number: int, content: bytes, checksum: int) -> ArrivalRows:
    now = time.time()
    sender = Address(f"sender{number % SENDERS}", "bench.test")
    recipient = Recipient(0, Address(f"recipient{number}", DOMAIN))
    envelope = Envelope(new_message_id(now), sender, (recipient,), len(content), now)
    stored = Stored(envelope, lane=PROVIDER, due_at=now)
    return ArrivalRows(rows.message_row(stored, rows.BODY_ROW, checksum), [rows.recipient_row(recipient)], content)


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
