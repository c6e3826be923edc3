"""Every dialog of tests/dialogs, played against the listener."""

from __future__ import annotations

import pytest

from tests.smtp import dialogs


@pytest.mark.parametrize("name", dialogs.names())
def test_dialog(name: str) -> None:
    dialogs.play(dialogs.read(name))


def test_a_dialog_that_goes_otherwise_fails() -> None:
    dialog = dialogs.read("ordinary")
    dialog.steps[0].replies[0] = "220 other.example *"
    with pytest.raises(AssertionError, match="expected"):
        dialogs.play(dialog)


def test_escapes_are_bytes() -> None:
    assert dialogs.unescape(r"a\r\n\0\x80\\ü") == b"a\r\n\0\x80\\\xc3\xbc"
