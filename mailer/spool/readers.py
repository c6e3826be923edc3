"""Connections that read the spool: each is used by one thread at a time and then waits for the next.

One lock guards the list of idle connections, and is never held over I/O. What a read meets is turned into ``SpoolError``
here; a damaged database is reported to ``on_damage`` first.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mailer.spool.faults import Fault, describe, fault_of
from mailer.spool.rows import Unreadable
from mailer.spool.store import SpoolError

MOST_IDLE = 8  # a connection holds two descriptors and some 100 KiB


class Readers:
    """A pool of read connections to the database at ``path``."""

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection], on_damage: Callable[[str], None]) -> None:
        self._path = path
        self._connect = connect
        self._on_damage = on_damage
        self._lock = threading.Lock()  # guards the next three
        self._idle: list[sqlite3.Connection] = []
        self._generation = 0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"Readers(idle={len(self._idle)}, closed={self._is_closed})"

    @contextlib.contextmanager
    def reading(self, is_snapshot: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection for the length of a ``with``; with ``is_snapshot`` all it reads is of one moment."""
        connection, generation = self._take()
        try:
            if is_snapshot:
                connection.execute("BEGIN")
            yield connection
            if is_snapshot:
                connection.execute("COMMIT")
        except (sqlite3.Error, Unreadable) as error:
            fault = fault_of(error, self._path.parent)
            generation = -1  # whatever it was, the next reader gets a new connection
            if fault is Fault.DAMAGE:
                self._on_damage(describe(error))
            raise SpoolError(f"cannot read the spool {self._path}: {describe(error)}; see the log") from error
        except BaseException:
            generation = -1
            raise
        finally:
            self._put_back(connection, generation)

    def forget(self) -> None:
        """Close every idle connection, and those in use once they come back."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._generation += 1
        for connection in idle:
            connection.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self.forget()

    def _take(self) -> tuple[sqlite3.Connection, int]:
        with self._lock:
            if self._is_closed:
                raise SpoolError("the spool is closed: mailer is stopping, or was told to")
            generation = self._generation
            if self._idle:
                return self._idle.pop(), generation
        try:
            return self._connect(), generation
        except sqlite3.Error as error:
            raise SpoolError(f"cannot open the spool {self._path}: {describe(error)}") from error

    def _put_back(self, connection: sqlite3.Connection, generation: int) -> None:
        with self._lock:
            keep = generation == self._generation and not self._is_closed and len(self._idle) < MOST_IDLE
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()
