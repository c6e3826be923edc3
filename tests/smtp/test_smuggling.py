"""SMTP smuggling against the listener: no false ending ends a message, and what is stored is one message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.smtp import smuggling
from tests.smtp.script import EHLO, MAIL, RCPT, Setting, added, codes, converse
from tests.smtp.smuggling import FALSE_ENDINGS


@pytest.mark.parametrize("name", FALSE_ENDINGS)
@pytest.mark.parametrize("early", [b"", b"NOOP\r\n"], ids=["alone", "after an early command"])
@pytest.mark.parametrize("policy", ["normalize", "reject"])
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "byte by byte"])
def test_a_false_ending_ends_nothing(name: str, early: bytes, policy: str, is_cut: bool) -> None:
    setting = Setting()
    setting.config = replace(setting.config, bare_newlines=policy)
    ending = FALSE_ENDINGS[name]
    conversation = EHLO + early + MAIL + RCPT + b"DATA\r\n" + smuggling.payload(ending) + b"NOOP\r\nQUIT\r\n"
    pieces = [conversation[i : i + 1] for i in range(len(conversation))] if is_cut else [conversation]
    replies = converse(*pieces, setting=setting)
    is_refused = smuggling.has_nul(ending) or (policy == "reject" and smuggling.has_bare_newline(ending))
    verdict = "550 5.6.0" if is_refused else "250 2.0.0"
    assert codes(replies)[-4:] == ["354", verdict, "250 2.0.0", "221 2.0.0"]
    assert smuggling.INNER_SENDER not in " ".join(str(e.sender) for e, _ in setting.intake.messages)
    if is_refused:
        assert setting.intake.messages == []
        assert all(writer.is_discarded for writer in setting.intake.writers)
    else:
        assert [added(content) for content in setting.intake.contents] == [smuggling.content_of(ending)]
