"""The tables of the spool's database, and how a connection to it is set up.

No threads, no locks. Fails with ``SpoolError`` for a database of a newer version, with sqlite3.Error for the rest.

A message is one row of ``messages`` for as long as its status is kept, one row of ``recipients`` each, and one of
``bodies`` while its content is small and the spool holds it. ``turn`` says where a message stands: 0 it has become
due, 1 it waits for ``due_at``, NULL it is finished. The indexes are partial, so that a finished message costs none.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from mailer.spool.places import PRIVATE_FILE
from mailer.spool.store import SpoolError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6D6C7231  # "mlr1": tells our file from any other SQLite database
OLDEST_SQLITE = (3, 35, 0)  # UPDATE … FROM is 3.33; 3.35 has the fixes to it
BUSY_TIMEOUT_MS = 5000  # only a person with the sqlite3 shell can hold us up
PAGE_BYTES = 4096  # measured: 8 and 16 KiB pages write more per message of 4 KiB
STATEMENTS_KEPT = 320  # every size of every multi-row statement of commit.py

READY, WAITING = 0, 1

SCHEMA = """
CREATE TABLE messages (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  sender TEXT NOT NULL,
  lane TEXT NOT NULL,
  state INTEGER NOT NULL,
  turn INTEGER,
  due_at REAL,
  rounds INTEGER NOT NULL,
  progress TEXT NOT NULL,
  waits_for TEXT NOT NULL,
  holder INTEGER NOT NULL,
  body INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  size INTEGER NOT NULL,
  recipients INTEGER NOT NULL,
  is_report INTEGER NOT NULL,
  accepted_at REAL NOT NULL,
  finished_at REAL,
  options TEXT NOT NULL
);
CREATE INDEX messages_by_time ON messages (turn, lane, due_at) WHERE turn IS NOT NULL;
CREATE INDEX messages_by_sender ON messages (lane, sender, due_at) WHERE turn = 0;
CREATE INDEX messages_by_holder ON messages (holder) WHERE holder <> 0;
CREATE INDEX messages_by_end ON messages (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE recipients (
  seq INTEGER NOT NULL,
  idx INTEGER NOT NULL,
  local_part TEXT NOT NULL,
  domain TEXT NOT NULL,
  state INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  provider TEXT NOT NULL,
  code INTEGER,
  enhanced TEXT,
  reply TEXT,
  updated_at REAL NOT NULL,
  PRIMARY KEY (seq, idx)
) WITHOUT ROWID;
CREATE TABLE bodies (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE waits (way TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (way, seq)) WITHOUT ROWID;
CREATE INDEX waits_by_message ON waits (seq);
CREATE TABLE usage (name TEXT NOT NULL, span INTEGER NOT NULL, start INTEGER NOT NULL, count INTEGER NOT NULL);
CREATE INDEX usage_by_name ON usage (name);
CREATE TABLE totals (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  queued INTEGER NOT NULL,
  parked INTEGER NOT NULL,
  successful INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  recipients INTEGER NOT NULL,
  processing_seconds REAL NOT NULL,
  queued_reports INTEGER NOT NULL
);
INSERT INTO totals VALUES (1, 0, 0, 0, 0, 0, 0.0, 0);
"""


class NotASpool(SpoolError):
    """The file is a database, but not one of ours: recovery sets it aside."""


class TooNew(SpoolError):
    """The database was made by a later version of this program."""


def check_sqlite() -> None:
    """Raise SpoolError when the SQLite that Python was built with is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(str(part) for part in OLDEST_SQLITE)
        raise SpoolError(f"this Python has SQLite {sqlite3.sqlite_version}; the spool needs {wanted} or later")


def create(path: Path) -> None:
    """Make the database at ``path`` unless it has our tables already. Raises NotASpool, TooNew."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        os.fchmod(descriptor, PRIVATE_FILE)  # the write-ahead log takes the database's mode
    finally:
        os.close(descriptor)  # nothing has it open yet: closing would drop SQLite's POSIX locks
    connection = _open(path)
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
        if version == 0 and tables == 0:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # both must stand before the first table
        else:
            _check_identity(connection, path, version)
        connection.execute("PRAGMA journal_mode = WAL")
        if tables == 0:
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(
                f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
    finally:
        connection.close()


def _check_identity(connection: sqlite3.Connection, path: Path, version: int) -> None:
    if int(connection.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
        raise NotASpool(f"{path} is a database of another program")
    if version > SCHEMA_VERSION:
        raise TooNew(
            f"{path} was written by a newer mailer (spool version {version}, this one knows {SCHEMA_VERSION}); run that one"
        )
    connection.execute("SELECT queued FROM totals WHERE one = 1").fetchone()[0]
    connection.execute("SELECT max(seq) FROM messages").fetchone()


def connect_writer(path: Path, log_bytes: int) -> sqlite3.Connection:
    """The writer's connection: durable commits, and a write-ahead log that stays about ``log_bytes`` long."""
    connection = _open(path)
    connection.execute("PRAGMA synchronous = FULL")  # in WAL mode: the log is fsync'd at every commit
    connection.execute(f"PRAGMA wal_autocheckpoint = {max(64, log_bytes // PAGE_BYTES)}")
    connection.execute(f"PRAGMA journal_size_limit = {2 * log_bytes}")  # after a burst the log shrinks to this
    # Debian's SQLite overwrites what is deleted with zeros, even in pages that need not be written: one for each message.
    connection.execute("PRAGMA secure_delete = FAST")  # zeros only where the page is written anyway
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    connection = _open(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _open(path: Path) -> sqlite3.Connection:
    """A connection that never makes a file: a database that vanished must be an error, not an empty spool."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False,
        cached_statements=STATEMENTS_KEPT,
    )  # fmt: skip
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection
