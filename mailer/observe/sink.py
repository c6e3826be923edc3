"""Where the log's bytes go: a file that is ours, or standard output, which is not.

No threads, no locks: a ``Sink`` belongs to the one thread that writes the log. Writing raises OSError, and the next write
starts a new line; a file that cannot be opened is a ``LogFileError``, and what was open before stays.
"""

from __future__ import annotations

import contextlib
import os
import select

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

    def write(self, data: bytes) -> None:
        """Write all of it, however long that takes. Raises OSError."""
        rest = memoryview(b"\n" + data if self._is_torn else data)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
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
