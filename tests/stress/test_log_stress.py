"""Every line that any thread logs is written once and whole, or counted as lost."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.config.schema import LoggingConfig
from mailer.observe import log as module
from mailer.observe.log import LogOutput
from tests.stress.together import THREADS, many

ROUNDS = 2000


@pytest.mark.parametrize("room", [module.QUEUE_ENTRIES, 50], ids=["ample", "scarce"])
def test_every_line_is_written_once_and_whole_or_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(module, "QUEUE_ENTRIES", room)
    settings = LoggingConfig(file=str(tmp_path / "first.log"))
    logging.getLogger().handlers.clear()  # the test runner's own would format each record in the caller
    output = LogOutput(settings)
    log = logging.getLogger("mailer.stress")

    def say(number: int) -> None:
        for round_number in range(ROUNDS):
            log.info("stress.line from=%d number=%d text=%s", number, round_number, "x" * 20)
            if number == 0 and round_number % 500 == 250:
                output.reopen()
                output.configure(replace(settings, file=str(tmp_path / f"file{round_number}.log")))

    try:
        many(say)
        assert output.flush(30.0)
    finally:
        assert output.close(30.0)
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    found = [re.fullmatch(r".* stress\.line from=(\d) number=(\d+) text=x{20}", line) for line in lines]
    told = sum(int(line.rpartition("=")[2]) for line in lines if " log.dropped lines=" in line)
    counted = Counter(match.groups() for match in found if match is not None)
    assert max(counted.values()) == 1
    assert len(counted) + output.lines_dropped == THREADS * ROUNDS
    assert told == output.lines_dropped
    assert [line for line, match in zip(lines, found, strict=True) if match is None and "log.dropped" not in line] == []
