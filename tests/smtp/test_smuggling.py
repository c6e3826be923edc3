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


@pytest.mark.parametrize("name", FALSE_ENDINGS)
@pytest.mark.parametrize("policy", ["normalize", "reject"])
@pytest.mark.parametrize("chunk_bytes", [1, 3, 10_000])
def test_nothing_in_a_chunk_ends_it_or_is_a_command(name: str, policy: str, chunk_bytes: int) -> None:
    setting = Setting()
    setting.config = replace(setting.config, bare_newlines=policy)
    ending = FALSE_ENDINGS[name]
    content = smuggling.payload(ending)
    chunks = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)]
    said = b"".join(b"BDAT %d\r\n" % len(chunk) + chunk for chunk in chunks) + b"BDAT 0 LAST\r\n"
    replies = converse(EHLO + MAIL + RCPT + said + b"NOOP\r\nQUIT\r\n", setting=setting)
    is_refused = smuggling.has_nul(ending) or (policy == "reject" and smuggling.has_bare_newline(ending))
    assert codes(replies)[-3:] == ["550 5.6.0" if is_refused else "250 2.0.0", "250 2.0.0", "221 2.0.0"]
    stored = [added(kept) for kept in setting.intake.contents]
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert stored == ([] if is_refused else [lines])


REFUSED_CHUNKS = {
    "before EHLO": (b"", "503 5.5.1"),
    "without MAIL": (EHLO, "503 5.5.1"),
    "without recipients": (EHLO + MAIL + b"RCPT TO:<bad>\r\n", "554 5.5.1"),
    "behind a refused MAIL": (EHLO + b"MAIL FROM:<bad>\r\n" + RCPT, "503 5.5.1"),
    "behind a refused chunk": (EHLO + MAIL + RCPT + b"BDAT 1\r\n\0", "550 5.6.0"),
    "behind a message": (EHLO + MAIL + RCPT + b"BDAT 0 LAST\r\n", "503 5.5.1"),
}


@pytest.mark.parametrize("case", REFUSED_CHUNKS)
@pytest.mark.parametrize("last", [b"", b" LAST"])
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "byte by byte"])
def test_what_is_within_a_refused_chunk_is_never_executed_and_what_is_behind_it_is(case: str, last: bytes, is_cut: bool) -> None:
    before, code = REFUSED_CHUNKS[case]
    setting = Setting()
    inner = b"RSET\r\n" + smuggling.INNER + smuggling.REAL_END
    conversation = before + b"BDAT %d%b\r\n" % (len(inner), last) + inner + b"VRFY x\r\nQUIT\r\n"
    pieces = [conversation[i : i + 1] for i in range(len(conversation))] if is_cut else [conversation]
    replies = converse(*pieces, setting=setting)
    assert codes(replies)[-3:] == [code, "252 2.5.0", "221 2.0.0"]
    assert smuggling.INNER_SENDER not in [str(envelope.sender) for envelope, _ in setting.intake.messages]


@pytest.mark.parametrize(
    "argument", [b"", b"LAST", b"-1", b"+5 LAST", b"0x20 LAST", b"1e3", b"5,LAST", b"9" * 21, b" 5", b"\xd9\xa5"]
)
def test_behind_a_chunk_of_unknown_size_nothing_is_executed(argument: bytes) -> None:
    setting = Setting()
    replies = converse(EHLO + MAIL + RCPT + b"BDAT " + argument + b"\r\n" + smuggling.INNER, setting=setting)
    assert codes(replies)[-2:] == ["501 5.5.4", "421 4.7.0"]


@pytest.mark.parametrize(
    "line", [b"BDAT 3\0\r\n", b"bdat 3\n", b"BDAT 3\r LAST\r\n", b"BDAT " + b"3" * 3000 + b"\r\n", b"BDAT" + b" " * 20_000]
)
def test_behind_a_bad_line_that_says_bdat_nothing_is_executed(line: bytes) -> None:
    replies = converse(EHLO + MAIL + RCPT + line, b"\r\n" + smuggling.INNER)
    assert codes(replies)[-1] == "421 4.7.0"
