"""The session under arbitrary input: no fault of ours, every reply well-formed, whatever the bytes and their packets."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.smtp.script import EHLO, MAIL, RCPT, Setting, codes, converse

WORDS = st.sampled_from(
    (EHLO + MAIL + RCPT + b"DATA\r\nRSET\r\n.\r\n\r\nQUIT\r\nAUTH PLAIN AGEAYg==\r\nAUTH LOGIN\r\n").splitlines(keepends=True)
    + b"STARTTLS\r\nNOOP\r\nVRFY x\r\nEXPN x\r\nHELP\r\nBDAT 3\r\nMAIL FROM:<\xc3\xbc@b> SMTPUTF8\r\n".splitlines(keepends=True)
    + b"BDAT 6 LAST\r\nBDAT 0 LAST\r\nBDAT 6\r\nBDAT x\r\nMAIL FROM:<a@b> RET=FULL ENVID=x+20\r\n".splitlines(keepends=True)
    + b"RCPT TO:<a@b> NOTIFY=NEVER ORCPT=rfc822;a\r\nRCPT TO:<a@b> ORCPT=\xc3\xbc\r\n".splitlines(keepends=True)
    + b"MAIL FROM:<|>| SIZE=|RCPT TO:|\xff\xfe|\0|\n|\r|HELO |a@b".split(b"|")
    + [b"A" * 3000]
)
NO_CODE = {"220", "250", "354", "334", "501"}


@settings(max_examples=300)
@given(st.lists(WORDS | st.binary(max_size=20), max_size=25))
def test_whatever_is_said_every_reply_is_well_formed(words: list[bytes]) -> None:
    setting = Setting()
    replies = converse(*words, setting=setting)
    for line in replies:
        assert re.fullmatch(r"[2-5][0-9]{2}[ -][ -~]*", line), line
        assert not line.startswith("421 4.3.0"), "an internal fault"
    for line, code in zip([r for r in replies if r[3] == " "], codes(replies), strict=True):
        assert " " in code or code in NO_CODE, line
    for _, content in setting.intake.messages:
        rest = content.replace(b"\r\n", b"")
        assert b"\r" not in rest
        assert b"\n" not in rest


@given(st.lists(WORDS | st.binary(max_size=20), max_size=15), st.lists(st.integers(0, 2000), max_size=10))
def test_replies_do_not_depend_on_how_the_bytes_are_cut(words: list[bytes], places: list[int]) -> None:
    stream = b"".join(words).replace(b"DATA", b"DATE") + b"\r\n"
    marks = sorted({place % (len(stream) + 1) for place in places})
    pieces = [stream[a:b] for a, b in zip([0, *marks], [*marks, len(stream)], strict=True)]
    assert [c[:3] for c in codes(converse(*pieces))] == [c[:3] for c in codes(converse(stream))]
