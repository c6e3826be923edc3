"""The spool as a stranger sees it: in use by a running mailer, or readable and whole. Nothing is written and nothing recovered.

No threads, no locks of ours: the instance's lock is tried in the shared form and let go at once. Fails with OSError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from mailer.doctor.case import Case
from mailer.doctor.finding import Finding, Status, failed, ok, warning
from mailer.spool import tables
from mailer.spool.places import Places

CHECK_SECONDS = 5.0  # a large spool takes minutes to read; a damaged one shows early
_STEPS = 10_000  # of SQLite's machine between two looks at the clock
_MAX_PID_BYTES = 32
UNKNOWN = "of an unknown number"


def spool(case: Case) -> Finding:
    places = Places(case.config.data_dir.absolute())
    if not places.spool.exists():
        return ok("none yet: the first start makes it")
    holder = holder_of(places.lock)
    if holder:
        return ok(f"in use by the running mailer, process {holder}")
    if places.damaged.exists() or places.carried.exists():
        return warning("the last run found it damaged, or was ended amid its repair", "start mailer: it recovers what is whole")
    if not places.database.exists():
        return ok("no message yet")
    log = places.database.with_name(places.database.name + "-wal")
    if log.exists() and log.stat().st_size:
        # To read it, SQLite would have to make a file beside it.
        return ok(f"nothing runs; the last run left {log.stat().st_size} bytes of log, which the next start takes in")
    found = _looked_through(places.database)
    if found.status is Status.FAILED and holder_of(places.lock):  # it was started meanwhile, and writes
        return ok("in use by mailer, which has just been started")
    return found


def holder_of(lock: Path) -> str:
    """The pid of the process that holds the spool, ``UNKNOWN`` if it cannot be read; empty where nobody does."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        # A start at this very moment would be refused once: shared and let go at once, that is microseconds.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, _MAX_PID_BYTES, 0).decode("ascii", "replace").strip()
        return text if text.isdigit() else UNKNOWN
    finally:
        os.close(descriptor)
    return ""


def _looked_through(database: Path) -> Finding:
    """Read the database as far as the time goes; ``immutable``, since nobody writes it and no file may be made beside it."""
    deadline = time.monotonic() + CHECK_SECONDS
    try:
        address = f"file:{quote(str(database))}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            identity = connection.execute("PRAGMA application_id").fetchone()[0]
            if identity != tables.APPLICATION_ID:
                return failed(f"{database} is no spool of mailer", "move it away: mailer puts it into quarantine when it starts")
            waiting = connection.execute("SELECT queued FROM totals").fetchone()[0]
            connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            verdict = _first_fault(connection)
    except sqlite3.Error as error:
        return failed(f"{database}: {error}", "check owner, rights and disk; mailer recovers what is whole when it starts")
    if verdict:
        return failed(f"{database} is damaged: {verdict}", "copy dataDir, then start mailer: it recovers what is whole")
    return ok(f"nothing runs; readable, {waiting} messages wait")


def _first_fault(connection: sqlite3.Connection) -> str:
    try:
        verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "interrupt" in str(error):  # the time is over, and what was read was whole
            return ""
        raise
    return "" if verdict == "ok" else verdict
