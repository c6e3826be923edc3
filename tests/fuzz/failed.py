"""A file of ``emails/failed``: one byte says how much of it counts as its head, the rest is the file.

Invariants: a message or ``Unreadable``; the content of a message is canonical; written and read again it is the same
message; read in pieces, where the file has our own form, it is the same as read whole.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

from mailer.mail.content import MemoryContent
from mailer.spool import unpark
from mailer.spool.parked import ParkedFile, Unreadable, to_pieces
from mailer.spool.unpark import read_parked

_FOLDER = Path(tempfile.gettempdir())


def check(data: bytes) -> None:
    if not data:
        return
    head_bytes, file = 64 + 4 * data[0], data[1:]
    whole = _read(file)
    with mock.patch.object(unpark, "HEAD_BYTES", head_bytes), mock.patch.object(unpark, "_PIECE_BYTES", 64):
        in_pieces = _read(file)
    if whole is None or in_pieces is None:
        return
    assert whole == in_pieces, f"{whole} {in_pieces}"
    assert whole.recipients is not None
    assert isinstance(whole.content, MemoryContent)
    lines = whole.content.data.replace(b"\r\n", b"")
    assert b"\r" not in lines
    assert b"\n" not in lines
    again = _read(b"".join(to_pieces(whole)))
    assert again == whole, f"{again} {whole}"


def _read(file: bytes) -> ParkedFile | None:
    try:
        found = read_parked(io.BytesIO(file), _FOLDER)
    except Unreadable:
        return None
    return replace(found, content=MemoryContent(b"".join(found.content.chunks())))
