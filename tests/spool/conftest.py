"""A spool in a folder of its own, closed at the end of the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.spool.sqlite import SqliteSpool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SqliteSpool]:
    opened = SqliteSpool.open(tmp_path)
    yield opened
    opened.close()
