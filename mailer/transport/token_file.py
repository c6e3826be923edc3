"""Token files: an access token that another program keeps fresh, or the refresh token that an endpoint rotated.

No threads, no locks; a file is written whole under another name and renamed. Raises OSError, or MailerError for a file
that holds no token.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from mailer.mail.outcome import MailerError
from mailer.transport.token_endpoint import is_token

MAX_FILE_BYTES = 65536


def mark_of(path: Path) -> tuple[int, int, int]:
    """What tells one version of a file from the next."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_token(path: Path) -> str:
    """The access token in a file: its text, or ``access_token`` of the JSON object in it."""
    text = _read(path).strip()
    if text.startswith("{"):
        text = _object(text).get("access_token", "")
    if not is_token(text) or " " in text:
        raise MailerError("holds no access token; it must be the token alone, or JSON with access_token")
    return text


def recall(path: Path, configured: str) -> str:
    """The refresh token that replaced ``configured``, or empty when none is stored for it."""
    try:
        fields = _object(_read(path))
    except (OSError, MailerError):
        return ""
    token = fields.get("refresh_token", "")
    return token if fields.get("replaces") == _fingerprint(configured) and is_token(token) else ""


def remember(path: Path, configured: str, refresh_token: str) -> None:
    """Store the refresh token that stands for ``configured`` from now on, readable by this user alone."""
    temporary = path.with_name(f".{path.name}.tmp")
    body = json.dumps({"refresh_token": refresh_token, "replaces": _fingerprint(configured)}).encode()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")


def _object(text: str) -> dict[str, str]:
    """The string members of a JSON object."""
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise MailerError("is not JSON") from error
    if not isinstance(fields, dict):
        raise MailerError("is not a JSON object")
    return {key: value for key, value in fields.items() if isinstance(value, str)}


def _fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
