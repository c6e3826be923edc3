"""The relay that a Python user would write: aiosmtpd takes a message, a file keeps it, smtplib sends it on.

    python -m bench.plain_relay PORT UPSTREAM_PORT FOLDER

As durable as it must be for a fair comparison: the file is written, fsync'd, renamed and its folder fsync'd before the 250,
and what lies in the folder at the start is sent. Delivery is by a few threads over connections that are kept. What it
lacks beside mailer: retries with back-off, failover, limits, an archive, a log, reports, bounds on memory.

Threads: aiosmtpd's loop in the main one, the executor's for files, ``WORKERS`` for delivery; a queue between them. A message
that cannot be sent stays in the folder until the next start.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import queue
import smtplib
import sys
import threading
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

WORKERS = 5  # as many as mailer's workerCount
LARGEST_BYTES = 32 * 1024 * 1024


class Spool:
    """A file a message: a line of JSON with the envelope, then the content. Hidden until it is complete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: queue.Queue[str] = queue.Queue()
        self._numbers = itertools.count()
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                path.unlink()
            else:
                self.names.put(path.name)

    def keep(self, envelope: Envelope) -> None:
        """Durable on return, and queued."""
        name = f"{os.getpid()}-{next(self._numbers)}"
        hidden = self.folder / f".{name}"
        head = json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos}).encode() + b"\n"
        with hidden.open("wb") as file:
            file.write(head)
            file.write(envelope.content or b"")  # type: ignore[arg-type]  # bytes: decode_data is off
            file.flush()
            os.fsync(file.fileno())
        hidden.rename(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.names.put(name)


class Handler:
    """What aiosmtpd calls."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802 - its name for it
        await asyncio.to_thread(self._spool.keep, envelope)  # so that one fsync does not hold up every other session
        return "250 2.0.0 accepted"


def deliver(spool: Spool, upstream_port: int) -> None:
    """The body of a worker."""
    client: smtplib.SMTP | None = None
    while True:
        path = spool.folder / spool.names.get()
        with path.open("rb") as file:
            head = json.loads(file.readline())
            content = file.read()
        for _ in range(2):  # the upstream may have closed the kept connection
            try:
                client = client or smtplib.SMTP("127.0.0.1", upstream_port, "plain.test", timeout=300)
                client.sendmail(head["from"], head["to"], content)
            except (OSError, smtplib.SMTPException) as error:
                print(f"{path.name}: {error!r}", flush=True)
                client = None
            else:
                path.unlink()
                break


async def serve(port: int, spool: Spool) -> None:
    def session() -> SMTP:
        return SMTP(Handler(spool), data_size_limit=LARGEST_BYTES, hostname="plain.test", enable_SMTPUTF8=True)

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


def main(port: int, upstream_port: int, folder: Path) -> None:
    spool = Spool(folder)
    for number in range(WORKERS):
        threading.Thread(target=deliver, args=(spool, upstream_port), name=f"worker-{number}", daemon=True).start()
    asyncio.run(serve(port, spool))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
