"""The program from source, made to die as by ``kill -9`` at one step of a message's life: before it, after it, or within it.

    python -m tests.support.dying "after publish" -config config.json

The steps are methods of the spool that are wrapped here, from outside: the program has no switch for it. ``Relay.start``
takes the words as ``dies``. Threads and locks: those of the program; whichever thread comes to the step first dies with all.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mailer.cli import main
from mailer.spool import failed
from mailer.spool.failed import FailedStore
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Holder, Record

FILE_STEPS = ("prepare", "publish", "discard_prepared", "remove", "bury", "quarantine", "adopt_name")
"""Methods of FailedStore; ``within prepare`` leaves half of the hidden file."""

RECORDS: dict[str, Callable[[Record], bool]] = {
    "parked": lambda record: record.holder is Holder.FILE,
    "finished": lambda record: record.state.is_final and record.holder is Holder.FILE_TO_CLEAR,
    "cleared": lambda record: record.state.is_final and record.holder is Holder.SPOOL,
}
"""Records by what they say. Before: it was never queued. After: it is durable, and nothing that follows it is done."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # for a thread that is not the one the kernel ends first


def arm(when: str, step: str) -> None:
    """Make the process die there."""
    if step in FILE_STEPS:
        if when == "within":
            failed.write_durably = _half  # type: ignore[attr-defined] # an import of that module
        else:
            _wrap(FailedStore, step, when)
    elif step == "adopt":
        _wrap(SqliteSpool, step, when)
    else:
        _wrap_record(RECORDS[step], when)


def _half(path: Path, pieces: Iterable[bytes]) -> None:
    data = b"".join(pieces)
    path.write_bytes(data[: len(data) // 2])
    die()


def _wrap(owner: type, name: str, when: str) -> None:
    plain = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die()
        result = plain(*args, **kwargs)
        die()
        return result

    setattr(owner, name, dying)


def _wrap_record(is_meant: Callable[[Record], bool], when: str) -> None:
    plain = SqliteSpool.record

    def record(self: SqliteSpool, record: Record, done: Callable[[], None]) -> None:
        if not is_meant(record):
            plain(self, record, done)
        elif when == "before":
            die()
        else:
            plain(self, record, die)

    SqliteSpool.record = record  # type: ignore[method-assign]


def every_step() -> Iterator[str]:
    """All words that ``arm`` knows, as ``dies`` takes them."""
    yield "within prepare"
    for step in (*FILE_STEPS, "adopt", *RECORDS):
        yield f"before {step}"
        yield f"after {step}"


if __name__ == "__main__":
    arm(*sys.argv.pop(1).split())
    sys.exit(main())
