"""Content in memory and in files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mailer.mail.content import CHUNK_BYTES, LARGE_BYTES, FileContent, MemoryContent

DATA = bytes(range(256)) * (LARGE_BYTES // 256 + 1)


@pytest.fixture
def content(tmp_path: Path) -> FileContent:
    path = tmp_path / "content"
    path.write_bytes(DATA)
    return FileContent(path, len(DATA))


def test_memory_content_is_its_bytes() -> None:
    content = MemoryContent(b"hello\r\n")
    assert content.size == 7
    assert list(content.chunks()) == [b"hello\r\n"]


def test_file_content_comes_in_bounded_pieces_any_number_of_times(content: FileContent) -> None:
    for _ in range(2):
        pieces = list(content.chunks())
        assert b"".join(pieces) == DATA
        assert max(map(len, pieces)) <= CHUNK_BYTES


def test_threads_read_the_same_file_content_at_once(content: FileContent) -> None:
    seen: list[bytes] = []
    threads = [threading.Thread(target=lambda: seen.append(b"".join(content.chunks()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [DATA] * 4


@pytest.mark.parametrize("damaged", [b"", DATA[:-1], DATA + b"x"])
def test_a_file_that_changed_its_size_is_an_error(content: FileContent, damaged: bytes) -> None:
    content.path.write_bytes(damaged)
    with pytest.raises(OSError, match=f"holds {len(damaged)} bytes where {len(DATA)} were written"):
        list(content.chunks())


def test_a_file_that_is_gone_is_an_error(content: FileContent) -> None:
    content.path.unlink()
    with pytest.raises(FileNotFoundError):
        list(content.chunks())
