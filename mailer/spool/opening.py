"""From a data directory to a spool that can be used: lock it, recover what damage left, sweep what a crash left.

No threads, no locks but the instance's own. Nothing here takes time with the number of waiting messages, unless the
database is damaged. Fails with ``SpoolLocked`` or ``SpoolError``, and then holds nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mailer.spool import tables
from mailer.spool.faults import Fault, describe, fault_of
from mailer.spool.lock import InstanceLock
from mailer.spool.places import PRIVATE_DIRECTORY, Places, make_private_directory, set_aside
from mailer.spool.recover import recover
from mailer.spool.reserve import Reserve
from mailer.spool.store import Holder, SpoolError

log = logging.getLogger(__name__)

_SWEEP_FILES = 500  # looked up at once


@dataclass(frozen=True, slots=True)
class Opened:
    """A spool that is locked, whole and swept."""

    places: Places
    lock: InstanceLock
    reserve: Reserve


def open_database(data_dir: Path) -> Opened:
    """Make ready the spool below ``data_dir``. Raises SpoolLocked, SpoolError."""
    tables.check_sqlite()
    places = Places(data_dir.absolute())
    try:
        for directory in (places.spool, places.content):
            make_private_directory(directory)
            directory.chmod(PRIVATE_DIRECTORY)
    except OSError as error:
        text = f"cannot make {error.filename or places.spool}: {error.strerror}; check dataDir and its rights"
        raise SpoolError(text) from error
    lock = InstanceLock(places.lock)
    try:
        return Opened(places, lock, _prepare(places))
    except BaseException as error:
        lock.release()
        if isinstance(error, OSError | sqlite3.Error):
            text = (error.strerror or str(error)) if isinstance(error, OSError) else describe(error)
            raise SpoolError(f"cannot open the spool {places.spool}: {text}; check the disk and the rights") from error
        raise


def _prepare(places: Places) -> Reserve:
    reserve = Reserve(places.reserve)
    existed = places.database.exists() and places.database.stat().st_size > 0
    reason = _damage(places, reserve)
    if reason:
        recover(places, reason)
        existed = False
    reserve.restore()
    try:
        _sweep(places, was_whole=existed)
    except sqlite3.Error as error:
        if fault_of(error, places.spool) is not Fault.DAMAGE:
            raise
        recover(places, describe(error))
        _sweep(places, was_whole=False)
    return reserve


def _damage(places: Places, reserve: Reserve) -> str:
    """Open the database, making a new one where there is none. Returns why it must be recovered, or nothing."""
    with contextlib.suppress(FileNotFoundError):
        return places.damaged.read_text("utf-8", "replace").strip() or "marked as damaged by the run before"
    if places.carried.exists():
        return "a recovery was interrupted"
    for _ in range(2):
        try:
            tables.create(places.database)
        except tables.NotASpool as error:
            return str(error)
        except sqlite3.Error as error:
            fault = fault_of(error, places.spool)
            if fault is Fault.SPACE and reserve.spend():
                continue
            if fault in {Fault.DAMAGE, Fault.ROW} or "no such" in str(error):
                return describe(error)
            raise
        return ""
    raise SpoolError(f"no space left to open the spool {places.spool}; free some")


def _sweep(places: Places, was_whole: bool) -> None:
    """Remove content that no unfinished message owns: a crash came before its commit, or after its end.

    After a damaged or missing database it may be accepted mail, so it goes to quarantine instead.
    """
    swept = 0
    connection = tables.connect_reader(places.database)
    try:
        for names in _pieces(entry.name for entry in os.scandir(places.content)):
            for name in names - _owned(connection, names):
                path = places.content / name
                with contextlib.suppress(OSError):
                    if was_whole or name.endswith("~"):
                        path.unlink()
                    else:
                        set_aside(path, places.quarantine, f"content {name}: no message in the spool names it", f"{name}.eml")
                    swept += 1
    finally:
        connection.close()
    if swept:
        log.info("spool.swept files=%d quarantined=%s", swept, not was_whole)


def _pieces(names: Iterator[str]) -> Iterator[set[str]]:
    while piece := set(islice(names, _SWEEP_FILES)):
        yield piece


def _owned(connection: sqlite3.Connection, names: set[str]) -> set[str]:
    marks = ", ".join("?" * len(names))
    query = f"SELECT id FROM messages WHERE turn IS NOT NULL AND holder = ? AND id IN ({marks})"  # noqa: S608 - marks only
    return {row[0] for row in connection.execute(query, [Holder.SPOOL.value, *names])}
