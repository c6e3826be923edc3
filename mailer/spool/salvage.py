"""Reading a damaged database: every row that a page still holds, past pages that it does not.

The database is opened read-only. When it cannot be opened at all, its first page is repaired first (its length, then
the whole page from a new database of the same schema, whose tables stand in the same places); the old page is kept
in the quarantine. No threads, no locks. Reading never fails: what cannot be read is left out. Fails with OSError.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mailer.spool import tables
from mailer.spool.places import keep_bytes
from mailer.spool.rows import MESSAGE_COLUMNS, RECIPIENT_COLUMNS, TICKS_A_SECOND
from mailer.spool.store import Totals

log = logging.getLogger(__name__)

_PAGE_COUNT_AT, _FREELIST_AT = 28, 32  # offsets in the database header, see the SQLite file format 1.3
_LARGEST_STEP = 2**40  # over the damaged stretch of a table; no sequence number comes near

Row = tuple[Any, ...]


class Salvage:
    """The readable part of the database at ``path``; ``quarantine`` takes the first page when that had to be repaired."""

    def __init__(self, path: Path, quarantine: Path) -> None:
        self._path = path
        self._quarantine = quarantine
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Salvage:
        if self._path.exists():
            self._connection = self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._connection is not None:
            self._connection.close()

    def messages(self) -> Iterator[Row]:
        """Rows of seq and ``MESSAGE_COLUMNS``."""
        return self._rows(f"SELECT seq, {MESSAGE_COLUMNS} FROM messages NOT INDEXED WHERE seq >= ? ORDER BY seq")  # noqa: S608 - constants

    def recipients(self, seq: int) -> tuple[list[list[Any]], bool]:
        """The recipients of a message in the form of ``RECIPIENT_AS_JSON``, and whether reading came to an end."""
        found: list[list[Any]] = []
        query = f"SELECT seq, {RECIPIENT_COLUMNS} FROM recipients WHERE seq = ? ORDER BY idx"  # noqa: S608 - constants
        try:
            for row in self._ask(query, (seq,)):
                if isinstance(row[10], float):
                    found.append([*row[:10], int(row[10] * TICKS_A_SECOND)])
        except sqlite3.Error:
            return found, False
        return found, True

    def body(self, seq: int) -> bytes | None:
        with contextlib.suppress(sqlite3.Error):
            for (data,) in self._ask("SELECT data FROM bodies WHERE seq = ?", (seq,)):
                return data if isinstance(data, bytes) else None
        return None

    def usage(self) -> Iterator[Row]:
        for row in self._rows("SELECT rowid, name, span, start, count FROM usage NOT INDEXED WHERE rowid >= ? ORDER BY rowid"):
            if isinstance(row[1], str) and all(isinstance(value, int) for value in row[2:]):
                yield row[1:]

    def totals(self) -> Totals | None:
        with contextlib.suppress(sqlite3.Error, TypeError):
            for row in self._ask(
                "SELECT queued, parked, successful, failed, recipients, processing_seconds, queued_reports FROM totals", ()
            ):
                if all(isinstance(value, int | float) for value in row):
                    return Totals(*row)
        return None

    def _ask(self, query: str, parameters: Sequence[object]) -> Iterator[Row]:
        if self._connection is None:
            return iter(())
        return iter(self._connection.execute(query, parameters))

    def _rows(self, query: str) -> Iterator[Row]:
        """The rows of a table by their number, stepping over what is damaged."""
        position = 0
        while True:
            try:
                for row in self._ask(query, (position,)):
                    yield row
                    position = row[0] + 1
                return
            except sqlite3.Error as error:
                log.warning("spool.unreadable_rows from=%d error=%s", position, ascii(str(error))[1:-1])
            good = self._readable_from(query, position)
            first = None if good is None else next(self._ask(f"{query} LIMIT 1", (good,)), None)
            if first is None:
                return
            yield first  # alone: a cursor reads one row ahead, and where that is damaged gives neither
            position = first[0] + 1

    def _readable_from(self, query: str, position: int) -> int | None:
        """The smallest number found, from ``position`` on, where the table can be read: steps doubled, then halved."""
        if self._is_readable(query, position):
            return position
        step = 1
        while not self._is_readable(query, position + step):
            step *= 2
            if step > _LARGEST_STEP:
                return None
        bad, good = position + step // 2, position + step
        while good - bad > 1:
            middle = (bad + good) // 2
            if self._is_readable(query, middle):
                good = middle
            else:
                bad = middle
        return good

    def _is_readable(self, query: str, position: int) -> bool:
        try:
            next(self._ask(f"{query} LIMIT 1", (position,)), None)
        except sqlite3.Error:
            return False
        return True

    def _open(self) -> sqlite3.Connection | None:
        repairs: tuple[Callable[[], None], ...] = (lambda: None, self._repair_length, self._repair_page)
        for repair in repairs:
            repair()
            connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            try:
                connection.execute("SELECT seq FROM messages LIMIT 0").fetchone()  # reads the first page alone
            except sqlite3.Error as error:
                log.warning("spool.unreadable path=%s error=%s", self._path, ascii(str(error))[1:-1])
                is_foreign = _is_foreign(connection)
                connection.close()
                if is_foreign:
                    return None  # whole, and not ours to repair
                continue
            return connection
        return None

    def _repair_length(self) -> None:
        """A file that was cut: say how many pages there are, for SQLite refuses to read one that is short."""
        page = self._first_page()
        if page.startswith(b"SQLite format 3\0"):
            self._write_first_page(_with_length(page, self._path.stat().st_size))

    def _repair_page(self) -> None:
        """A first page that is none: take a new database's, whose tables were made in the same order."""
        with tempfile.TemporaryDirectory(dir=self._path.parent) as folder:
            model = Path(folder) / "model.db"
            tables.create(model)
            page = model.read_bytes()[: tables.PAGE_BYTES]
        keep_bytes([self._first_page()], self._quarantine, f"{self._path.name}.page1", "the first page as it was found")
        self._write_first_page(_with_length(page, self._path.stat().st_size))

    def _first_page(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(tables.PAGE_BYTES)

    def _write_first_page(self, page: bytes) -> None:
        with self._path.open("r+b") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())


def _is_foreign(connection: sqlite3.Connection) -> bool:
    """Whether it is a database of another program. One that cannot be read is taken for ours."""
    with contextlib.suppress(sqlite3.Error):
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return int(connection.execute("PRAGMA application_id").fetchone()[0]) != tables.APPLICATION_ID
    return False


def _with_length(page: bytes, size: int) -> bytes:
    """The page with the file's true number of pages, and no list of unused ones: nobody will write here again."""
    count = (size // tables.PAGE_BYTES).to_bytes(4, "big")
    return page[:_PAGE_COUNT_AT] + count + bytes(8) + page[_FREELIST_AT + 8 :]
