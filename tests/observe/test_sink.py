"""Lines stay whole wherever two processes write them."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

from mailer.observe.sink import Sink

LINES = [b"line %d %s\n" % (number, b"x" * (number % 300)) for number in range(300)]
LONG = b"y" * (2 * select.PIPE_BUF) + b"\n"


def written(data: bytes) -> list[bytes]:
    """The writes that it took to bring ``data`` to something that is no file."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(data))
        theirs.setblocking(False)
        Sink(ours.fileno(), "").write(data)
        found = []
        while True:
            try:
                found.append(theirs.recv(len(data)))
            except BlockingIOError:
                return found


def test_what_is_no_file_gets_whole_lines_in_writes_that_nothing_can_come_between() -> None:
    pieces = written(b"".join(LINES))
    assert b"".join(pieces) == b"".join(LINES)
    assert len(pieces) > 1
    assert all(len(piece) <= select.PIPE_BUF for piece in pieces)
    assert all(piece.endswith(b"\n") for piece in pieces)


def test_line_that_is_longer_than_such_a_write_is_written_alone() -> None:
    assert written(LINES[0] + LONG + LINES[1]) == [LINES[0], LONG, LINES[1]]


def test_file_gets_all_of_it_and_what_follows_a_torn_line_begins_a_new_one(tmp_path: Path) -> None:
    sink = Sink(1, str(tmp_path / "log"))
    sink.write(b"".join(LINES) + b"torn")
    sink.write(b"whole\n")
    sink.close()
    assert (tmp_path / "log").read_bytes() == b"".join(LINES) + b"torn\nwhole\n"
    assert os.fstat(1)  # standard output is not ours to close
