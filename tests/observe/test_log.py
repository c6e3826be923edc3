"""The log as a whole: real loggers, real pipes and files."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.config.schema import LoggingConfig
from mailer.observe import log as logs
from mailer.observe.log import LogFileError, LogOutput, configure

LOG = logging.getLogger("mailer.test")
TIMEOUT_SECONDS = 20.0


def open_log(settings: LoggingConfig, stdout: int = -1) -> LogOutput:
    """The log, alone: the test runner's own handlers would format each record in the caller."""
    logging.getLogger().handlers.clear()
    return configure(settings, stdout)


@contextlib.contextmanager
def logging_to(settings: LoggingConfig, stdout: int = -1) -> Iterator[LogOutput]:
    output = open_log(settings, stdout)
    try:
        yield output
    finally:
        output.close()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        for end in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(end)


def read_to_end(descriptor: int) -> str:
    pieces = []
    while piece := os.read(descriptor, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces).decode()


def is_writable(descriptor: int) -> bool:
    return bool(select.select([], [descriptor], [], 0)[1])


def test_lines_go_to_standard_output_in_order_and_closing_writes_the_rest() -> None:
    with pipe() as (reader, writer):
        with logging_to(LoggingConfig(), writer):
            for number in range(500):
                LOG.info("x.y number=%d", number)
        os.close(writer)
        lines = read_to_end(reader).splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [f"x.y number={number}" for number in range(500)]


def test_level_is_obeyed_and_restored() -> None:
    before = logging.getLogger().level
    with pipe() as (reader, writer):
        with logging_to(LoggingConfig(level="warning"), writer):
            LOG.info("x.info")
            LOG.warning("x.warning")
        os.close(writer)
        text = read_to_end(reader)
    assert text.endswith("WARNING x.warning\n")
    assert "x.info" not in text
    assert logging.getLogger().level == before


def test_json_names_the_thread_and_keeps_the_traceback_as_a_field() -> None:
    def work() -> None:
        try:
            raise ValueError("a\nb")
        except ValueError:
            LOG.exception("x.fault id=%s", "0abc")

    with pipe() as (reader, writer):
        with logging_to(LoggingConfig(format="json"), writer):
            thread = threading.Thread(target=work, name="worker-7")
            thread.start()
            thread.join()
        os.close(writer)
        (line,) = read_to_end(reader).splitlines()
    row = json.loads(line)
    assert (row["level"], row["event"], row["id"], row["thread"]) == ("ERROR", "x.fault", "0abc", "worker-7")
    assert "ValueError: a\nb" in row["traceback"]


def test_file_is_made_for_its_group_only_and_appended_to(tmp_path: Path) -> None:
    file = tmp_path / "mailer.log"
    for number in (1, 2):
        with logging_to(LoggingConfig(file=str(file))):
            LOG.info("x.y number=%d", number)
    assert file.read_text().count("x.y number=") == 2
    assert stat.S_IMODE(file.stat().st_mode) & 0o137 == 0


def test_reopening_follows_a_rotation(tmp_path: Path) -> None:
    file = tmp_path / "mailer.log"
    with logging_to(LoggingConfig(file=str(file))) as output:
        LOG.info("x.before")
        assert output.flush(TIMEOUT_SECONDS)
        file.rename(tmp_path / "mailer.log.1")
        LOG.info("x.between")
        output.reopen()
        LOG.info("x.after")
        assert output.flush(TIMEOUT_SECONDS)
        assert file.read_text().endswith("x.after\n")
    old = (tmp_path / "mailer.log.1").read_text()
    assert "x.before" in old
    assert "x.between" in old
    assert "x.after" not in old


def test_file_that_cannot_be_reopened_stays_and_a_line_says_so(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "mailer.log"
    file.parent.mkdir()
    with logging_to(LoggingConfig(file=str(file))) as output:
        moved = file.parent.rename(tmp_path / "gone")
        output.reopen()
        LOG.info("x.after")
        assert output.flush(TIMEOUT_SECONDS)
        text = (moved / "mailer.log").read_text()
    assert "ERROR log.file_fault" in text
    assert "logging.file" in text
    assert text.endswith("x.after\n")


def test_file_that_cannot_be_opened_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(LogFileError, match=r"logging\.file: cannot open .*nowhere/mailer\.log"):
        configure(LoggingConfig(file=str(tmp_path / "nowhere" / "mailer.log")))
    assert logging.getLogger().handlers == handlers


def test_reload_changes_level_form_and_place(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with logging_to(LoggingConfig(file=str(first))) as output:
        LOG.debug("x.one")
        LOG.info("x.two")
        output.configure(LoggingConfig(file=str(second), format="json", level="debug", mask_addresses=True))
        LOG.debug("x.three to=%s", "alice@example.com")
        assert output.flush(TIMEOUT_SECONDS)
        assert json.loads(second.read_text())["to"] == "a***@example.com"
    assert "x.one" not in first.read_text()
    assert "x.two" in first.read_text()


def test_blocked_standard_output_holds_up_no_caller_and_the_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads the pipe: it fills, then the queue; callers go on, and warnings still find room."""
    monkeypatch.setattr(logs, "QUEUE_ENTRIES", 500)
    monkeypatch.setattr(logs, "_ROOM_FOR_WARNINGS", 600)
    monkeypatch.setattr(logs, "_ROOM_FOR_ERRORS", 700)
    with pipe() as (reader, writer):
        output = open_log(LoggingConfig(), writer)
        while is_writable(writer):
            LOG.info("x.filler text=%s", "x" * 1000)
        before = output.lines_dropped
        while output.lines_dropped == before:  # the writer is stuck: now the queue fills, for good
            LOG.info("x.filler text=%s", "x" * 1000)
        LOG.warning("x.warning")
        LOG.error("x.error")
        dropped = output.lines_dropped
        for _ in range(1000):
            LOG.info("x.dropped")
        assert output.lines_dropped == dropped + 1000
        assert output.close(timeout_seconds=0.01) is False  # closing gives up as well

        text: list[str] = []
        drain = threading.Thread(target=lambda: text.append(read_to_end(reader)))
        drain.start()
        assert output._service.join(TIMEOUT_SECONDS)
        os.close(writer)
        drain.join(TIMEOUT_SECONDS)
    assert "x.warning" in text[0]
    assert "x.error" in text[0]
    assert "x.dropped" not in text[0]
    told = [int(line.rpartition("=")[2]) for line in text[0].splitlines() if "WARNING log.dropped" in line]
    assert sum(told) == dropped + 1000


def test_even_errors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUE_ENTRIES", 5)
    monkeypatch.setattr(logs, "_ROOM_FOR_WARNINGS", 6)
    monkeypatch.setattr(logs, "_ROOM_FOR_ERRORS", 7)
    with pipe() as (reader, writer):
        output = open_log(LoggingConfig(), writer)
        while output.lines_dropped == 0:
            LOG.error("x.filler text=%s", "x" * 1000)
        assert output._queue.qsize() <= 7
        drain = threading.Thread(target=read_to_end, args=(reader,))
        drain.start()
        assert output.close(TIMEOUT_SECONDS)
        os.close(writer)
        drain.join(TIMEOUT_SECONDS)


def test_broken_pipe_reaches_no_caller_and_is_counted() -> None:
    with pipe() as (reader, writer):
        os.close(reader)
        with logging_to(LoggingConfig(), writer) as output:
            LOG.info("x.one")
            LOG.info("x.two")
            assert output.flush(TIMEOUT_SECONDS)
            assert output.lines_dropped == 2
            LOG.info("x.three")
            assert output.flush(TIMEOUT_SECONDS)
            assert output.lines_dropped == 3


def test_full_disk_loses_lines_and_says_so_once_there_is_room(tmp_path: Path) -> None:
    with logging_to(LoggingConfig(file="/dev/full")) as output:
        LOG.info("x.lost")
        assert output.flush(TIMEOUT_SECONDS)
        output.configure(LoggingConfig(file=str(tmp_path / "mailer.log")))
        LOG.info("x.kept")
        assert output.flush(TIMEOUT_SECONDS)
    text = (tmp_path / "mailer.log").read_text()
    assert "WARNING log.dropped lines=1\n" in text
    assert text.endswith("x.kept\n")
    assert "x.lost" not in text


def test_standard_output_made_nonblocking_by_somebody_loses_nothing() -> None:
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        output = open_log(LoggingConfig(), writer)
        for number in range(3000):
            LOG.info("x.y number=%d text=%s", number, "x" * 100)
        assert output.flush(0.1) is False  # the pipe is full: writing would block
        text: list[str] = []
        drain = threading.Thread(target=lambda: text.append(read_to_end(reader)))
        drain.start()
        assert output.close(TIMEOUT_SECONDS)
        os.close(writer)
        drain.join(TIMEOUT_SECONDS)
    assert text[0].count("\n") == 3000
    assert output.lines_dropped == 0


def log_turns(number: int) -> None:
    for turn in range(300):
        LOG.info("x.y thread=%d turn=%d", number, turn)


def test_line_from_every_thread_arrives_whole() -> None:
    with pipe() as (reader, writer):
        text: list[str] = []
        drain = threading.Thread(target=lambda: text.append(read_to_end(reader)))
        drain.start()
        with logging_to(LoggingConfig(), writer):
            threads = [threading.Thread(target=log_turns, args=[number]) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        os.close(writer)
        drain.join(TIMEOUT_SECONDS)
    seen = {line.split(" ", 2)[2] for line in text[0].splitlines()}
    assert seen == {f"x.y thread={n} turn={turn}" for n in range(8) for turn in range(300)}


def test_argument_that_breaks_in_its_own_way_costs_one_line_at_most() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ConnectionError("while shown")

    with pipe() as (reader, writer):
        with logging_to(LoggingConfig(), writer):
            LOG.info("x.before")
            LOG.info("x.broken a=%s", Broken())
            LOG.info("x.after")
        os.close(writer)
        text = read_to_end(reader)
    assert "x.before" in text
    assert "x.after" in text


def test_handlers_of_others_and_formats_with_names_get_what_they_need() -> None:
    class Kept(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.records: list[logging.LogRecord] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.records.append(record)

    kept = Kept()
    with pipe() as (reader, writer):
        with logging_to(LoggingConfig(), writer):
            logging.getLogger().addHandler(kept)
            LOG.warning("x.y a=%s", 1)
            LOG.info("x.y a=%(a)s", {"a": 2})
            logging.getLogger().removeHandler(kept)
        os.close(writer)
        text = read_to_end(reader)
    assert [record.getMessage() for record in kept.records] == ["x.y a=1", "x.y a=2"]
    assert [(record.levelno, record.name) for record in kept.records] == [(30, "mailer.test"), (20, "mailer.test")]
    assert "x.y a=1\n" in text
    assert '"x.y a=2"\n' in text


def test_closing_gives_back_what_it_had_set() -> None:
    before = logging.getLogRecordFactory(), logging.logThreads, logging.getLogger().level
    with pipe() as (_, writer), logging_to(LoggingConfig(), writer):
        assert logging.getLogRecordFactory() is not before[0]
    assert (logging.getLogRecordFactory(), logging.logThreads, logging.getLogger().level) == before


def test_closing_twice_is_closing_once() -> None:
    with pipe() as (_, writer):
        output = open_log(LoggingConfig(), writer)
        assert output.close()
        assert output.close()
        assert "closed=True" in repr(output)
