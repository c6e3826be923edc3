"""Local files as a way for mail."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.mail.address import Address
from mailer.mail.content import Content
from mailer.mail.envelope import State
from mailer.mail.outcome import Delivery, MailerError, Stage
from mailer.transport.local import LocalFiles
from tests.transport.deliveries import BODY, delivery_to

ID = "0123456789abcdefg"


class Breaking:
    """Content whose reading fails in the middle, as a write to a full disk does."""

    size = len(BODY)

    def __init__(self, number: int) -> None:
        self._number = number

    def chunks(self) -> Iterator[bytes]:
        yield BODY[:10]
        raise OSError(self._number, os.strerror(self._number))


def test_a_message_becomes_a_file_with_its_envelope_on_top(tmp_path: Path) -> None:
    verdicts = LocalFiles(tmp_path).deliver(delivery_to("b@x.test", '"c d"@y.test'))
    path = tmp_path / "emails" / f"{ID}.eml"
    assert path.read_bytes() == (
        b'Return-Path: <a@client.test>\r\nEnvelope-To: b@x.test\r\nEnvelope-To: "c d"@y.test\r\n' + BODY
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(v.is_delivered for v in verdicts.values())
    assert list(verdicts) == [0, 1]
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing temporary stays"


def test_the_null_sender_is_written_as_such(tmp_path: Path) -> None:
    LocalFiles(tmp_path).deliver(delivery_to(sender=""))
    assert (tmp_path / "emails" / f"{ID}.eml").read_bytes().startswith(b"Return-Path: <>\r\n")


def test_delivering_again_changes_nothing(tmp_path: Path) -> None:
    local, path = LocalFiles(tmp_path), tmp_path / "emails" / f"{ID}.eml"
    local.deliver(delivery_to())
    before = path.read_bytes()
    assert local.deliver(delivery_to())[0].is_delivered
    assert path.read_bytes() == before


def test_a_later_batch_names_the_earlier_ones_too(tmp_path: Path) -> None:
    whole = delivery_to("a@x.test", "b@x.test", "c@x.test")
    first = replace(whole.recipients[0], state=State.SUCCESS, provider="local")
    elsewhere = replace(whole.recipients[1], state=State.SUCCESS, provider="smtp.provider.test")
    envelope = replace(whole.envelope, recipients=(first, elsewhere, whole.recipients[2]))
    LocalFiles(tmp_path).deliver(Delivery(envelope, envelope.recipients[2:], whole.render, whole.deadline))
    text = (tmp_path / "emails" / f"{ID}.eml").read_text()
    assert "Envelope-To: a@x.test\n" in text
    assert "Envelope-To: c@x.test\n" in text
    assert "b@x.test" not in text


@pytest.mark.parametrize(
    ("number", "code", "enhanced"),
    [(errno.ENOSPC, 452, "4.3.1"), (errno.EDQUOT, 452, "4.3.1"), (errno.EIO, 451, "4.3.0"), (errno.EACCES, 451, "4.3.0")],
)
def test_a_refusing_disk_is_a_temporary_verdict(tmp_path: Path, number: int, code: int, enhanced: str) -> None:
    verdict = LocalFiles(tmp_path).deliver(delivery_to(content=Breaking(number)))[0]
    assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.LOCAL, code, enhanced)
    assert list((tmp_path / "emails").iterdir()) == []


def test_a_failed_attempt_leaves_the_earlier_file_whole(tmp_path: Path) -> None:
    local, path = LocalFiles(tmp_path), tmp_path / "emails" / f"{ID}.eml"
    local.deliver(delivery_to())
    before = path.read_bytes()
    local.deliver(delivery_to(content=Breaking(errno.ENOSPC)))
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_temporary_verdict(tmp_path: Path) -> None:
    (tmp_path / "emails").write_text("a file where the folder should be")
    verdict = LocalFiles(tmp_path).deliver(delivery_to())[0]
    assert (verdict.stage, verdict.reply.code) == (Stage.LOCAL, 451)


def test_content_that_cannot_be_rendered_is_a_temporary_verdict(tmp_path: Path) -> None:
    def refuse(extensions: frozenset[str], header_from: Address | None = None) -> Content:
        raise MailerError("no form")

    delivery = delivery_to()
    verdict = LocalFiles(tmp_path).deliver(Delivery(delivery.envelope, delivery.recipients, refuse, delivery.deadline))[0]
    assert (verdict.stage, verdict.reply.code, verdict.reply.text) == (Stage.LOCAL, 451, "no form")


@pytest.mark.parametrize("message_id", ["../../etc/cron.d/x", "a/b", "", ".hidden", "x" * 65, "a\0b"])
def test_an_id_that_is_no_file_name_writes_nothing(tmp_path: Path, message_id: str) -> None:
    """G4: nothing from outside becomes a path."""
    verdict = LocalFiles(tmp_path / "data").deliver(delivery_to(message_id=message_id))[0]
    assert (verdict.stage, verdict.reply.code) == (Stage.LOCAL, 451)
    assert list(tmp_path.rglob("*.eml")) == []
