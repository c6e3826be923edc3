"""The log: takes what the program's loggers say and writes it, as lines, to standard output or a file.

One thread (``log``) formats and writes; a log call only puts what it was given into a queue, so a slow disk or a reader
that has stopped reading holds up no mail. The queue has its own lock, ``LogOutput`` one more for the count of lines lost.
The queue is bounded: when it is full, lines below WARNING are dropped first, and a line says how many were lost.

Nothing here raises into a log call. When writing fails (broken pipe, full disk) the lines are lost and counted, and the
next ones are tried again. A file that cannot be opened at start is a ``LogFileError``; at ``reopen`` the old one stays.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

from mailer.config.schema import LoggingConfig
from mailer.observe.lines import MAX_TRACEBACK_CHARS, Entry, Lines
from mailer.observe.sink import LogFileError, Sink
from mailer.service import Service

QUEUE_ENTRIES = 20_000
"""Entries kept for a writer that is held up: some seconds of full load, about 10 MB."""
_ROOM_FOR_WARNINGS = QUEUE_ENTRIES + 2_000  # WARNING still finds room when INFO no longer does,
_ROOM_FOR_ERRORS = QUEUE_ENTRIES + 5_000  # and ERROR when WARNING no longer does; bounded all the same

GATHER_SECONDS = 0.02
"""How long a line may wait for others, so that a busy log is written, and its thread woken, at most 50 times a second."""
_BATCH_ENTRIES = 1_000  # written with one call: a few hundred KB
CLOSE_SECONDS = 5.0
"""How long closing waits for a reader that does not read."""
_STDOUT = 1

__all__ = ["LogFileError", "LogOutput", "configure"]


class _Command(NamedTuple):
    """Something for the writer to do between two entries: ``"flush"``, ``"reopen"``, ``"configure"`` or ``"close"``."""

    name: str
    done: threading.Event
    settings: LoggingConfig | None = None


_Queue = queue.SimpleQueue[Entry | _Command]


def configure(settings: LoggingConfig, stdout: int = _STDOUT) -> LogOutput:
    """Send everything that is logged from now on to where ``settings`` say. Raises LogFileError.

    ``stdout`` is the file descriptor that stands for standard output.
    """
    return LogOutput(settings, stdout)


class LogOutput:
    """The program's log while it is open. Any thread may call its methods."""

    def __init__(self, settings: LoggingConfig, stdout: int = _STDOUT) -> None:
        self._queue: _Queue = queue.SimpleQueue()
        self._losses = _Losses()
        self._hurry = threading.Event()
        writer = _Writer(self._queue, Sink(stdout, settings.file), self._losses, self._hurry)
        writer.configure(settings)
        self._service = Service("log", writer)
        self._handler = _Handler(self._queue, self._losses)
        self._before = _Globals()
        self._closed = False
        logging.getLogger().addHandler(self._handler)
        logging.getLogger().setLevel(_level(settings))
        # What these look up for each record (the process's id and name, the caller's line) is in none of our lines.
        logging.logProcesses = logging.logMultiprocessing = False
        logging.logThreads = settings.format == "json"
        logging.setLogRecordFactory(_Record)
        logging._srcfile = None  # the documented way to save the walk up the stack (logging HOWTO, "Optimization")
        atexit.register(self.close)
        self._service.start()

    def __repr__(self) -> str:
        return f"LogOutput(waiting={self._queue.qsize()}, lost={self._losses.total}, closed={self._closed})"

    @property
    def lines_dropped(self) -> int:
        """Lines that were never written, since the start: for want of room, or because writing failed."""
        return self._losses.total

    def configure(self, settings: LoggingConfig) -> None:
        """Go on with other settings. A new file that cannot be opened is logged, and the old place stays."""
        logging.getLogger().setLevel(_level(settings))
        logging.logThreads = settings.format == "json"
        self._tell("configure", settings)

    def reopen(self) -> None:
        """Open the log's file anew: a rotation has moved the old one away."""
        self._tell("reopen")

    def flush(self, timeout_seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until what was logged before is written; False when it took longer than ``timeout_seconds``."""
        return self._tell("flush").wait(timeout_seconds)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> bool:
        """Write what was logged, and stop. False when that took too long (nobody reads): what was left is lost."""
        if self._closed:
            return True
        self._closed = True
        logging.getLogger().removeHandler(self._handler)
        self._tell("close")
        self._before.restore()
        atexit.unregister(self.close)
        return self._service.join(timeout_seconds)

    def _tell(self, command: str, settings: LoggingConfig | None = None) -> threading.Event:
        done = threading.Event()
        self._queue.put(_Command(command, done, settings))
        self._hurry.set()
        return done


class _Record(logging.LogRecord):
    """A log record with what a line needs and no more: a usual one looks up a dozen other things, for half its time.

    The thread's name is in lines of JSON alone, so ``logging.logThreads``, which our handler sets, says whether it is
    asked for. A handler that is not ours finds what ``getMessage`` and its level need, and no file, function or process.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - as logging calls it
        self, name: str, level: int, pathname: str, lineno: int, msg: object, args: Any, exc_info: Any,
        func: str | None = None, sinfo: str | None = None, **_: object,
    ) -> None:  # fmt: skip
        del pathname, lineno, func
        if len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
            args = args[0]  # as logging does, for formats like "%(key)s"
        self.name, self.levelno, self.msg, self.args = name, level, msg, args
        self.created = time.time()
        self.exc_info, self.stack_info = exc_info, sinfo
        self.threadName = threading.current_thread().name if logging.logThreads else ""


class _Globals:
    """What the logging module had set before us."""

    def __init__(self) -> None:
        self._level = logging.getLogger().level
        self._flags = logging.logProcesses, logging.logMultiprocessing, logging.logThreads
        self._source = logging._srcfile
        self._factory = logging.getLogRecordFactory()

    def restore(self) -> None:
        logging.getLogger().setLevel(self._level)
        logging.logProcesses, logging.logMultiprocessing, logging.logThreads = self._flags
        logging._srcfile = self._source
        logging.setLogRecordFactory(self._factory)


class _Losses:
    """How many lines were lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards total
        self.total = 0

    def add(self, lines: int) -> None:
        with self._lock:
            self.total += lines


class _Handler(logging.Handler):
    """Where a logger hands in its records. ``handle`` does without the handler's lock: the queue has its own."""

    def __init__(self, entries: _Queue, losses: _Losses) -> None:
        super().__init__()
        self._queue = entries
        self._losses = losses

    def handle(self, record: logging.LogRecord) -> bool:
        level = record.levelno
        waiting = self._queue.qsize()
        if waiting >= QUEUE_ENTRIES and waiting >= _room(level):
            self._losses.add(1)
            return True
        trace = _traceback(record) if record.exc_info or record.stack_info else ""
        self._queue.put(Entry(record.created, level, record.name, record.msg, record.args, record.threadName or "", trace))
        return True

    def emit(self, record: logging.LogRecord) -> None:
        self.handle(record)


def _room(level: int) -> int:
    if level >= logging.ERROR:
        return _ROOM_FOR_ERRORS
    return _ROOM_FOR_WARNINGS if level >= logging.WARNING else QUEUE_ENTRIES


def _traceback(record: logging.LogRecord) -> str:
    """The traceback as text, at once: kept as it is, it would keep every frame's variables alive."""
    text = record.stack_info or ""
    if record.exc_info and record.exc_info[0] is not None:
        text = "".join(traceback.format_exception(*record.exc_info)) + text
    return text[: MAX_TRACEBACK_CHARS + 1]


def _level(settings: LoggingConfig) -> int:
    return logging.getLevelNamesMapping().get(settings.level.upper(), logging.INFO)


class _Writer:
    """The body of the log's thread: gathers entries, makes lines of them, writes them in one go."""

    def __init__(self, entries: _Queue, sink: Sink, losses: _Losses, hurry: threading.Event) -> None:
        self._queue = entries
        self._sink = sink
        self._losses = losses
        self._hurry = hurry  # set: somebody waits for the writer, so it does not wait for more entries
        self._lines = Lines(as_json=False, mask_addresses=False)
        self._losses_told = 0
        self._pending: list[str] = []

    def configure(self, settings: LoggingConfig) -> None:
        self._lines = Lines(settings.format == "json", settings.mask_addresses)

    def step(self, now: float) -> float | None:
        del now  # an entry has its own time
        item = self._queue.get()
        self._hurry.wait(GATHER_SECONDS)
        self._hurry.clear()
        try:
            while True:
                if isinstance(item, _Command):
                    self._obey(item)
                    if item.name == "close":
                        return None
                else:
                    self._pending.append(self._lines.line(item))
                if len(self._pending) >= _BATCH_ENTRIES:
                    return 0.0
                item = self._queue.get_nowait()
        except queue.Empty:
            return 0.0
        finally:
            self._write_pending()

    def _obey(self, command: _Command) -> None:
        self._write_pending()
        try:
            if command.name == "reopen":
                self._sink.reopen()
            elif command.name == "configure" and command.settings is not None:
                self.configure(command.settings)
                self._sink.move(command.settings.file)
            elif command.name == "close":
                self._sink.close()
        except LogFileError as error:
            self._pending.append(self._line(logging.ERROR, "log.file_fault error=%s", str(error)))
        finally:
            command.done.set()

    def _write_pending(self) -> None:
        lost = self._losses.total - self._losses_told
        lines, self._pending = self._pending, []
        if not lines and not lost:
            return
        told = [self._line(logging.WARNING, "log.dropped lines=%d", lost)] if lost else []
        try:
            self._sink.write("".join(told + lines).encode("utf-8", "backslashreplace"))
        except OSError:
            self._losses.add(len(lines))
        else:
            self._losses_told += lost

    def _line(self, level: int, form: str, *args: object) -> str:
        return self._lines.line(Entry(time.time(), level, __name__, form, args, "log", ""))
