"""Local files as a way for mail: ``emails/<id>.eml`` under the data folder, where no other way is enabled (spec 4).

A file is complete or absent: written under a temporary name, fsync'd, renamed, and its folder fsync'd. Delivering a
message again replaces its file by the same. No threads, no locks: an id is delivered by one worker at a time. A full
disk or any other error is a verdict.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mailer.mail.content import Content
from mailer.mail.envelope import State
from mailer.mail.outcome import Delivery, MailerError, Reply, Stage, Verdict

log = logging.getLogger(__name__)

EXTENSIONS = frozenset({"8BITMIME", "SMTPUTF8"})  # a file takes everything
_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")  # spec 4, and no hidden file
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LocalFiles:
    """A Transport whose mail ends in files. ``data_dir`` is the configuration's."""

    name = "local"

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "emails"

    def __repr__(self) -> str:
        return f"LocalFiles({str(self._folder)!r})"

    def deliver(self, delivery: Delivery) -> Mapping[int, Verdict]:
        """Write the message for all its recipients of this delivery and earlier ones."""
        verdict = self._deliver(delivery)
        log.info(
            "delivery.attempt id=%s provider=local recipients=%d delivered=%d reply=%r stage=%s",
            delivery.envelope.id,
            len(delivery.recipients),
            len(delivery.recipients) if verdict.is_delivered else 0,
            str(verdict.reply),
            verdict.stage.value,
        )
        return {r.index: verdict for r in delivery.recipients}

    def _deliver(self, delivery: Delivery) -> Verdict:
        message_id = delivery.envelope.id
        if _SAFE_ID.fullmatch(message_id) is None:
            return Verdict(Stage.LOCAL, Reply(451, "4.3.0", f"message id {message_id[:80]!r} cannot be a file name"))
        path = self._folder / f"{message_id}.eml"
        try:
            content = delivery.render(EXTENSIONS)
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(path, self._head(delivery), content)
        except MailerError as error:
            return Verdict(Stage.LOCAL, Reply(451, "4.6.0", str(error)))
        except OSError as error:
            reason = f"{path}: {error.strerror or error}"
            if error.errno in _NO_SPACE:
                return Verdict(Stage.LOCAL, Reply(452, "4.3.1", f"no space: {reason}"))
            return Verdict(Stage.LOCAL, Reply(451, "4.3.0", f"cannot write: {reason}"))
        return Verdict(Stage.DATA, Reply(250, "2.0.0", f"saved as {path.name}"))

    def _head(self, delivery: Delivery) -> bytes:
        """The envelope, as header lines: where the message came from and whom this file stands for (all batches)."""
        indexes = {r.index for r in delivery.recipients}
        named = [
            r
            for r in delivery.envelope.recipients
            if r.index in indexes or (r.provider == self.name and r.state is State.SUCCESS)
        ]
        lines = [b"Return-Path: " + delivery.envelope.sender.to_path()]
        lines += [b"Envelope-To: " + r.address.to_path()[1:-1] for r in named]
        return b"".join(line + b"\r\n" for line in lines)


def _write(path: Path, head: bytes, content: Content) -> None:
    """Raises OSError; then nothing is left behind, or an older complete file."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123 - Path.open cannot set the mode
            file.write(head)
            for chunk in content.chunks():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
