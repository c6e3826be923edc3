"""The upstream of the bench counts recipients of whole messages, however the bytes are cut."""

from __future__ import annotations

import pytest

from bench.receiver import Conversation

DIALOG = (
    b"EHLO relay.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<1@b.test>\r\nRCPT TO:<2@b.test>\r\nDATA\r\n"
    b"Subject: x\r\n\r\nfoo.\r\nx\r\n..\r\n.\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<3@b.test>\r\nRSET\r\n"
    b"MAIL FROM:<a@b.test>\r\nRCPT TO:<4@b.test>\r\nDATA\r\n.\r\nQUIT\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(DIALOG)])
def test_pieces_of_any_size_make_the_same_conversation(size: int) -> None:
    conversation = Conversation()
    results = [conversation.feed(DIALOG[at : at + size]) for at in range(0, len(DIALOG), size)]
    codes = [line[:3] for line in b"".join(answer for answer, _ in results).split(b"\r\n") if line[3:4] == b" "]
    assert codes == [b"250"] * 4 + [b"354"] + [b"250"] * 6 + [b"354", b"250", b"221"]
    assert sum(recipients for _, recipients in results) == 3
