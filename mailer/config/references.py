"""Owns the resolving of secrets that are given as ``env:NAME`` or ``file:/path``, and bounded reading of small files.

No state, no threads. Fails with ``ReferenceFault``, which names the variable or the file and never its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mailer.config.kinds import is_secret_text
from mailer.config.problems import shown, shown_path
from mailer.config.secret import Secret
from mailer.mail.outcome import MailerError

MAX_SECRET_BYTES = 65536  # a token is a few KiB; more means that the path is wrong


class ReferenceFault(MailerError):
    """A variable or file that a reference names cannot be used."""


@dataclass(frozen=True, slots=True)
class References:
    """Where references are looked up: an environment, and the folder at which relative paths start."""

    environ: Mapping[str, str]
    folder: Path

    def resolve(self, secret: Secret) -> Secret:
        """The secret itself for a reference to one; any other text is the secret."""
        text = secret.reveal()
        if text.startswith("env:"):
            name = text[len("env:") :]
            value = self.environ.get(name, "")
            if not value:
                raise ReferenceFault(f"environment variable {shown(name)} is not set")
            return _checked(value, f"environment variable {shown(name)}")
        if text.startswith("file:"):
            path = self.folder / text[len("file:") :]
            content = read_text(path, MAX_SECRET_BYTES).rstrip("\r\n")
            if not content:
                raise ReferenceFault(f"file {shown_path(path)} is empty")
            return _checked(content, f"file {shown_path(path)}")
        return secret


def _checked(text: str, source: str) -> Secret:
    if not is_secret_text(text):
        raise ReferenceFault(f"{source} holds more than one line, or bytes that are not text")
    return Secret(text)


def read_text(path: Path, limit_bytes: int) -> str:
    """The UTF-8 text of a file of at most ``limit_bytes``; a byte order mark is dropped."""
    name = shown_path(path)
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise ReferenceFault(f"file {name} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ReferenceFault(f"{name} is not the name of a file") from None
    if len(content) > limit_bytes:
        raise ReferenceFault(f"file {name} is larger than {limit_bytes} bytes")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ReferenceFault(f"file {name} is in UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReferenceFault(f"file {name} is not UTF-8 (byte {error.start + 1})") from None
