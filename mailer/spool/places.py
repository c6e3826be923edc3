"""Where the spool's things lie on disk, and how its files are made: private (0600 and 0700 whatever the umask) and durable.

No threads, no locks. Fails with OSError, but for ids that are no file names: ``BadId``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mailer.mail.envelope import is_message_id
from mailer.spool.store import SpoolError

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
REASON_SUFFIX = ".reason.txt"
DRAFT_SUFFIX = "~"  # no id holds a tilde, so no draft of one message is ever the content of another

_UNSAFE_IN_NAME = re.compile(r"[^A-Za-z0-9._@+=,-]+")
_MAX_NAME_CHARS = 120  # leaves room for suffixes below the 255 bytes of a file name


class BadId(SpoolError):
    """A message id that cannot be a file name; nothing was stored under it."""


def checked_id(text: str) -> str:
    """``text``, if it is a message id; raises BadId."""
    if not is_message_id(text):
        raise BadId(f"message id {text[:80]!a} is not 1 to 64 characters of A-Z a-z 0-9 . _ - without a dot first")
    return text


class Places:
    """The paths below one data directory. Immutable."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.spool = data_dir / "spool"
        self.database = self.spool / "mailer.db"
        self.carried = self.spool / "mailer.db.carried"  # a recovered database that is complete but not in place yet
        self.lock = self.spool / "lock"
        self.reserve = self.spool / "reserve"
        self.damaged = self.spool / "damaged"
        self.content = self.spool / "content"
        self.emails = data_dir / "emails"
        self.failed = self.emails / "failed"
        self.dead = self.emails / "dead"
        self.quarantine = self.emails / "quarantine"
        self.archive = self.emails / "archive"

    def __repr__(self) -> str:
        return f"Places({str(self.data_dir)!r})"

    def content_of(self, message_id: str) -> Path:
        return self.content / checked_id(message_id)

    def draft_of(self, message_id: str) -> Path:
        return self.content / f"{checked_id(message_id)}{DRAFT_SUFFIX}"


def make_private_directory(path: Path) -> None:
    """Make ``path``, and what is missing above it, for our user alone; one that exists keeps its mode."""
    if path.is_dir():
        return
    make_private_directory(path.parent)
    try:
        path.mkdir(PRIVATE_DIRECTORY)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(PRIVATE_DIRECTORY)  # the umask may have taken even our own rights away
    sync_directory(path.parent)


def open_new(path: Path) -> int:
    """A descriptor of a new private file. FileExistsError when anything, a dangling link too, has that name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE_FILE)
    os.fchmod(descriptor, PRIVATE_FILE)
    return descriptor


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable: a rename or a new file is not on disk before this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a new private file and its name to disk; what stood there under that name goes first."""
    path.unlink(missing_ok=True)
    with os.fdopen(open_new(path), "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.parent)


def safe_name(text: str) -> str:
    """``text`` as a file name that no shell and no log stumbles over."""
    name = _UNSAFE_IN_NAME.sub("_", text)[:_MAX_NAME_CHARS]
    return name if name.strip("._") else f"unnamed{name}"


def free_name(directory: Path, name: str) -> Path:
    """``directory/name``, or with a number behind it when that is taken."""
    path = directory / name
    number = 1
    while os.path.lexists(path):
        path = directory / f"{name}.{number}"
        number += 1
    return path


def set_aside(source: Path, directory: Path, reason: str, name: str = "") -> Path:
    """Move ``source`` into ``directory`` (the quarantine) with ``reason`` in a file beside it; returns where it went."""
    source.lstat()  # nothing to move: no reason file either
    make_private_directory(directory)
    target = free_name(directory, safe_name(name or source.name))
    with contextlib.suppress(OSError):  # a full disk: out of the way without a reason is better than in the way
        explain(target, reason)
    source.rename(target)
    sync_directory(directory)
    sync_directory(source.parent)
    return target


def keep_bytes(pieces: Iterable[bytes], directory: Path, name: str, reason: str) -> Path:
    """Like ``set_aside`` for bytes that are in no file of their own."""
    make_private_directory(directory)
    target = free_name(directory, safe_name(name))
    explain(target, reason)
    write_durably(target, pieces)
    return target


def explain(target: Path, reason: str) -> None:
    """Write the reason file of a quarantined ``target``."""
    write_durably(target.with_name(target.name + REASON_SUFFIX), [reason.encode("utf-8", "replace"), b"\n"])
