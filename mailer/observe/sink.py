"""Where the log's bytes go: a file that is ours, or standard output, which is not.

No threads, no locks: a ``Sink`` belongs to the one thread that writes the log. Writing raises OSError, and the next write
starts a new line; a file that cannot be opened is a ``LogFileError``, and what was open before stays. Our other process may
write to the same place: lines stay whole.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat

from mailer.mail.outcome import MailerError

FILE_MODE = 0o640  # addresses are personal data: not for everybody


class LogFileError(MailerError):
    """The file of ``logging.file`` cannot be opened."""


class Sink:
    """Where bytes go: a file that is ours, or standard output, which is not. Used by the writer alone."""

    def __init__(self, stdout: int, file: str) -> None:
        self._stdout = stdout
        self._file = file
        self._is_torn = False  # the last write ended within a line
        self._descriptor = self._open(self._file) if self._file else stdout
        self._is_file = _is_file(self._descriptor)

    def write(self, data: bytes) -> None:
        """Write all of it, however long that takes. Raises OSError."""
        whole = b"\n" + data if self._is_torn else data
        rest = memoryview(whole)
        while rest:
            start = len(whole) - len(rest)
            piece = rest if self._is_file else rest[: _end_of_piece(whole, start) - start]
            try:
                written = os.write(self._descriptor, piece)
            except BlockingIOError:  # somebody made our standard output non-blocking; wait as if it were not
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
                continue
            if written:
                self._is_torn = rest[written - 1] != ord("\n")
                rest = rest[written:]

    def reopen(self) -> None:
        if self._file:
            self._use(self._open(self._file))

    def move(self, file: str) -> None:
        """Go on at another place. Raises LogFileError, and then stays."""
        if file != self._file:
            self._use(self._open(file) if file else self._stdout)
            self._file = file

    def close(self) -> None:
        self._use(self._stdout)
        self._file = ""

    def _use(self, descriptor: int) -> None:
        old, self._descriptor = self._descriptor, descriptor
        self._is_file = _is_file(descriptor)
        self._is_torn = False
        if old != self._stdout:
            with contextlib.suppress(OSError):  # a late write error of a network disk: its lines are gone already
                os.close(old)

    @staticmethod
    def _open(file: str) -> int:
        try:
            return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"logging.file: cannot open {file} for writing: {reason}; name another file or allow it"
            raise LogFileError(text) from error


def _is_file(descriptor: int) -> bool:
    """Whether a write there is one, however large; False also where that cannot be known."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _end_of_piece(data: bytes, start: int) -> int:
    """Where to end a write to a pipe: behind the last line that fits into PIPE_BUF, so that no line of another process gets
    in between (pipe(7)); behind a longer line, whole."""
    if len(data) - start <= select.PIPE_BUF:
        return len(data)
    end = data.rfind(b"\n", start, start + select.PIPE_BUF)
    if end < 0:
        end = data.find(b"\n", start)
    return end + 1 if end >= 0 else len(data)
