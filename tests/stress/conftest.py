"""Threads change as often as the interpreter can make them."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

SWITCH_SECONDS = 1e-5


@pytest.fixture(autouse=True)
def _restless_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    yield
    sys.setswitchinterval(before)
