"""The program from source, made to die as by ``kill -9`` at one step of a message's life: before it, after it, or within it.

    python -m tests.support.dying "after publish" -config config.json
    python -m tests.support.dying "within commit 40" -config config.json      (at the fortieth time)

The steps are methods of spool and provider that are wrapped here, from outside: the program has no switch for it. ``Relay.start``
takes the words as ``dies``. Threads and locks: those of the program; whichever thread comes to the step first dies with all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mailer.cli import main
from mailer.dispatch.intake import Intake
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.spool import failed
from mailer.spool.batch import Batch
from mailer.spool.failed import FailedStore
from mailer.spool.ledger import Ledger
from mailer.spool.places import write_durably
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Holder, Record, Told
from mailer.transport.provider import Provider

FILE_STEPS = ("prepare", "publish", "discard_prepared", "remove", "bury", "quarantine", "adopt_name")
"""Methods of FailedStore; ``within prepare`` leaves half of the hidden file."""

RECORDS: dict[str, Callable[[Record], bool]] = {
    "parked": lambda record: record.holder is Holder.FILE,
    "finished": lambda record: record.state.is_final and record.holder is Holder.FILE_TO_CLEAR,
    "delivered": lambda record: record.state.is_final and record.holder is Holder.SPOOL and bool(record.recipients),
    "cleared": lambda record: record.state.is_final and record.holder is Holder.SPOOL and not record.recipients,
}
"""Records by what they say. Before: it was never queued. After: it is durable, and nothing that follows it is done."""


OTHER_STEPS: dict[str, tuple[type, str]] = {
    "adopt": (SqliteSpool, "adopt"),
    "commit": (Ledger, "write"),
    "deliver": (Provider, "deliver"),
}
"""Methods by the name of their step. ``within commit``: all is written, and COMMIT is not said. ``after deliver``: the provider
has answered, and nothing of it is recorded."""


class Death:
    """Comes at the ``nth`` call, to whichever thread makes it."""

    def __init__(self, nth: int = 1) -> None:
        self._lock = threading.Lock()  # guards _left
        self._left = nth

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # for a thread that is not the one the kernel ends first


def arm(when: str, step: str, nth: str = "1") -> None:
    """Make the process die there."""
    die = Death(int(nth))
    if step in FILE_STEPS and when == "within":
        failed.write_durably = partial(_half, die)  # type: ignore[attr-defined] # an import of that module
    elif step in FILE_STEPS:
        _wrap(FailedStore, step, when, die)
    elif (when, step) == ("within", "commit"):
        _wrap_work(die)
    elif step == "submit":
        _wrap_announce(when, die)
    elif step in OTHER_STEPS:
        _wrap(*OTHER_STEPS[step], when, die)
    else:
        _wrap_record(RECORDS[step], when, die)


def _half(die: Death, path: Path, pieces: Iterable[bytes]) -> None:
    data = b"".join(pieces)
    path.write_bytes(data[: len(data) // 2])
    die()
    write_durably(path, [data])


def _wrap(owner: type, name: str, when: str, die: Death) -> None:
    plain = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die()
        result = plain(*args, **kwargs)
        if when == "after":
            die()
        return result

    setattr(owner, name, dying)


def _wrap_work(die: Death) -> None:
    plain = Ledger.write

    def write(self: Ledger, work: Callable[[Batch], None]) -> Batch:
        def dying(batch: Batch) -> None:
            work(batch)
            die()

        return plain(self, dying)

    Ledger.write = write  # type: ignore[method-assign]


def _wrap_announce(when: str, die: Death) -> None:
    """Before: read whole, and not handed to the spool. After: durable, and whoever waits for the 250 is not told."""
    plain = Intake.announce

    def announce(self: Intake, envelope: Envelope, content: Content, told: Told) -> None:
        if when == "before":
            die()
            plain(self, envelope, content, told)
        else:
            plain(self, envelope, content, partial(_die_and_tell, die, told))

    Intake.announce = announce  # type: ignore[method-assign]


def _die_and_tell(die: Death, told: Told, outcomes: Any) -> None:
    die()
    told(outcomes)


def _wrap_record(is_meant: Callable[[Record], bool], when: str, die: Death) -> None:
    plain = SqliteSpool.record

    def record(self: SqliteSpool, record: Record, done: Callable[[], None]) -> None:
        if not is_meant(record):
            plain(self, record, done)
        elif when == "before":
            die()
            plain(self, record, done)
        else:
            plain(self, record, partial(_die_and, die, done))

    SqliteSpool.record = record  # type: ignore[method-assign]


def _die_and(die: Death, done: Callable[[], None]) -> None:
    die()
    done()


def every_step() -> Iterator[str]:
    """All words that ``arm`` knows, as ``dies`` takes them."""
    yield from ("within prepare", "within commit")
    for step in (*FILE_STEPS, "submit", *OTHER_STEPS, *RECORDS):
        yield f"before {step}"
        yield f"after {step}"


if __name__ == "__main__":
    arm(*sys.argv.pop(1).split())
    sys.exit(main())
