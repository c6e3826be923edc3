"""Reading a file of ``emails/failed`` into a message: whole where it is small or foreign, in pieces where it is large and ours.

No threads, no locks. Fails with ``Unreadable``, OSError from the file, and ``NotNow`` where large content cannot be kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from mailer.mail.content import LARGE_BYTES, Content, MemoryContent
from mailer.spool import parked
from mailer.spool.canonical import Canonical
from mailer.spool.parked import NotNow, ParkedFile, Unreadable
from mailer.spool.places import make_private_directory
from mailer.spool.unlinked import UnlinkedContent

LARGEST_WHOLE_BYTES = 64 * 1024 * 1024
"""Files in a form that is not ours are read whole, up to this: the Go program's limit of 25 MiB in base64, twice."""
SMALL_BYTES = 512 * 1024  # what holds LARGE_BYTES in base64 is read whole
HEAD_BYTES = 4 * 1024 * 1024  # where Data opens in our own form: 1,000 recipients with long replies are 1.5 MB
_PIECE_BYTES = 64 * 1024  # a multiple of 4: base64 decodes piece by piece


def read_parked(file: BinaryIO, folder: Path) -> ParkedFile:
    """The message in ``file``. Content over 256 KiB goes into a file without a name in ``folder``."""
    start = b""
    for size in (SMALL_BYTES, HEAD_BYTES):
        start += file.read(size - len(start))
        split = parked.split_large(start) if len(start) == size else None
        if split is not None:
            return _read_in_pieces(file, folder, *split)
    data = start + file.read(LARGEST_WHOLE_BYTES + 1 - len(start))
    if len(data) > LARGEST_WHOLE_BYTES:
        raise Unreadable(f"it has over {LARGEST_WHOLE_BYTES} bytes and was not written by mailer")
    found = parked.parse(data)
    del data, start
    text = found.pop("data", None)
    if not isinstance(text, str):
        raise Unreadable("Data is missing" if text is None else "Data is no string")
    head = parked.head_of(found)
    form = Canonical()
    content = form.feed(parked.decode(text.replace("\r", "").replace("\n", ""))) + form.finish()
    if len(content) <= LARGE_BYTES:
        return _message(head, MemoryContent(content), form)
    with _keeping(folder):
        kept = _unlinked(folder)
        kept.write(content)
    return _message(head, kept, form)


def _read_in_pieces(file: BinaryIO, folder: Path, head_json: bytes, data_at: int) -> ParkedFile:
    head = parked.head_of(parked.parse(head_json))
    form = Canonical()
    with _keeping(folder):
        content = _unlinked(folder)
    file.seek(data_at)
    is_whole = False
    while not is_whole and (piece := file.read(_PIECE_BYTES)):
        text, quote, tail = piece.partition(b'"')
        is_whole = bool(quote)
        decoded = form.feed(parked.decode(text))
        with _keeping(folder):
            content.write(decoded)
        if is_whole and (tail + file.read(_PIECE_BYTES)).strip() != b"}":
            raise Unreadable("it goes on behind Data")
    if not is_whole:
        raise Unreadable("it ends within Data")
    with _keeping(folder):
        content.write(form.finish())
    return _message(head, content, form)


@contextlib.contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """What fails in here is not the file's fault."""
    try:
        yield
    except OSError as error:
        raise NotNow(f"its content cannot be kept in {folder}: {error.strerror or error}") from error


def _unlinked(folder: Path) -> UnlinkedContent:
    make_private_directory(folder)
    return UnlinkedContent(folder)


def _message(head: parked.Head, content: Content, form: Canonical) -> ParkedFile:
    """The options as the file says, and what the content and the addresses ask for beyond that."""
    said = head.options
    options = replace(
        said,
        body="8BITMIME" if form.is_8bit else said.body,
        smtputf8=said.smtputf8 or head.sender.needs_smtputf8 or any(r.address.needs_smtputf8 for r in head.recipients),
        has_long_lines=form.has_long_lines,
    )
    return ParkedFile(head.id, head.sender, head.recipients, content, head.accepted_at, head.rounds, options)
