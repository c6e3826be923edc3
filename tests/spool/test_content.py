"""A content file, written in pieces of any size and read back."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.mail.content import CHUNK_BYTES, LARGE_BYTES, MemoryContent
from mailer.spool.content import SpoolContentWriter, SpooledFile
from mailer.spool.places import Places

_SIZES = st.lists(st.sampled_from([0, 1, 1000, 30_000, 65_536, 65_537, CHUNK_BYTES, LARGE_BYTES, LARGE_BYTES + 1]), max_size=40)


def places(folder: Path) -> Places:
    made = Places(folder)
    made.content.mkdir(parents=True)
    return made


@settings(max_examples=30, deadline=None)
@given(_SIZES)
def test_what_was_written_is_read_back_however_it_was_cut(sizes: list[int]) -> None:
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    whole = b"".join(pieces)
    with tempfile.TemporaryDirectory() as folder:
        writer = SpoolContentWriter(places(Path(folder)), "m1")
        for piece in pieces:
            writer.write(piece)
        content = writer.finish()
        assert isinstance(content, MemoryContent if len(whole) <= LARGE_BYTES else SpooledFile)
        assert b"".join(content.chunks()) == whole
        assert content.size == writer.size == len(whole)
        if isinstance(content, SpooledFile):
            assert content.crc == zlib.crc32(whole)


@pytest.mark.parametrize("at", [0, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
def test_a_changed_byte_is_found_before_the_last_piece_is_given(tmp_path: Path, at: int) -> None:
    writer = SpoolContentWriter(places(tmp_path), "m1")
    writer.write(b"x" * (LARGE_BYTES + 10))
    content = writer.finish()
    assert isinstance(content, SpooledFile)
    with content.path.open("r+b") as file:
        file.seek(at)
        file.write(b"y")
    given: list[bytes] = []
    with pytest.raises(OSError, match="other bytes"):
        given.extend(content.chunks())
    assert sum(map(len, given)) < content.size
