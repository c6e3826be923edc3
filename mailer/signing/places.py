"""Where DKIM keys stand on disk, which selector is in use, and how a new key is put there.

A key of the configuration has its file, ``keys/<domain>/<selector>.private`` by default. Beside it may stand
``<selector>.selector``, which ``mailer dkim rotate`` writes: one line, the selector in use in place of the configured one,
whose key stands in the same folder. So a rotation changes no line of a configuration that somebody has written, and
setting another selector there, or removing the file, undoes it. ``<selector>.next`` names the one that a rotation waits for.

No threads, no locks: every file comes into being whole, by link or rename. Fails with ``KeyUnusable`` or OSError.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mailer.config.names import is_selector
from mailer.config.schema import DkimConfig, DkimKeyConfig
from mailer.signing.keys import KeyUnusable, PrivateKey, read_key

MAX_FILE_BYTES = 65536  # a PEM file of an RSA key of 4096 bits has 3,300
FOLDER_MODE = 0o700
FILE_MODE = 0o600
_EXPOSED = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP
"""Who else may use or replace a key. A group that reads it was given that on purpose (root owns, the service's group reads)."""


@dataclass(frozen=True)
class Place:
    """A configured key on disk. ``setting`` is where it stands in the configuration, ``signs_all`` what it signs."""

    setting: str
    config: DkimKeyConfig
    signs_all: bool
    selector: str  # the one in use

    @property
    def domain(self) -> str:
        return self.config.domain

    @property
    def folder(self) -> Path:
        return Path(self.config.private_key_path).parent

    @property
    def is_rotated(self) -> bool:
        return self.selector != self.config.selector

    @property
    def key_file(self) -> Path:
        return self.file_of(self.selector)

    @property
    def selector_file(self) -> Path:
        """Names the selector in use."""
        return self.folder / f"{self.config.selector}.selector"

    @property
    def next_file(self) -> Path:
        """Names the selector that waits for its DNS record."""
        return self.folder / f"{self.config.selector}.next"

    def file_of(self, selector: str) -> Path:
        """The key file of a selector."""
        if selector == self.config.selector:
            return Path(self.config.private_key_path)
        return self.folder / f"{selector}.private"

    def read(self) -> PrivateKey:
        """The key in use. Raises KeyUnusable with the path, the reason and what to do."""
        path = self.key_file
        try:
            return read_key_file(path)
        except FileNotFoundError:
            pass
        except OSError as fault:
            raise KeyUnusable(f"{self.setting}: key {path} cannot be read: {fault.strerror} ({_who(path)})") from fault
        except KeyUnusable as fault:
            raise KeyUnusable(f"{self.setting}: {fault}") from fault
        if self.is_rotated:
            raise KeyUnusable(
                f"{self.setting}: there is no key {path}, which {self.selector_file} names: put it back, or remove that file "
                f"to sign with the selector {self.config.selector} again"
            )
        command = f"mailer dkim generate --domain {self.domain} --selector {self.selector}"
        raise KeyUnusable(f"{self.setting}: there is no key {path}: make one with `{command}`, or set dkim.enabled to false")

    def exposed(self) -> str:
        """What a person should know of the key file's permissions; empty when they are right."""
        path = self.key_file
        mode = path.stat().st_mode
        if not mode & _EXPOSED:
            return ""
        return f"{self.setting}: others can read or change the key {path} (mode {mode & 0o777:03o}): chmod 600 {path}"


def places_of(config: DkimConfig) -> list[Place]:
    """Every configured key. Raises KeyUnusable for a file beside one that names no selector."""
    return [
        Place(setting, entry, entry.domain == config.domain, _selector_in_use(setting, entry))
        for setting, entry in config.all_keys
    ]


def _selector_in_use(setting: str, entry: DkimKeyConfig) -> str:
    named = Place(setting, entry, False, entry.selector).selector_file
    try:
        return read_selector(named) or entry.selector
    except (KeyUnusable, OSError) as fault:
        raise KeyUnusable(
            f"{setting}: {named} cannot be used: {fault}; remove it to sign with the selector {entry.selector}"
        ) from fault


def read_selector(path: Path) -> str:
    """The selector that a file names; empty when there is no such file."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
    if not is_selector(text):
        raise KeyUnusable("it names no selector")
    return text


def read_key_file(path: Path) -> PrivateKey:
    """The key in a file. Raises KeyUnusable or OSError."""
    with path.open("rb") as file:
        pem = file.read(MAX_FILE_BYTES)
    try:
        return read_key(pem)
    except KeyUnusable as fault:
        raise KeyUnusable(f"key {path} {fault}") from fault


def write_key_file(path: Path, key: PrivateKey) -> None:
    """Put a new key there, 0600, in a folder of 0700. Never overwrites: FileExistsError if there is a file."""
    folders = [path.parent, *path.parent.parents]
    for folder in reversed([folder for folder in folders if not folder.exists()]):
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        _give_to_owner_above(folder)
    temporary = _written(path, key.pem)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def write_selector(path: Path, selector: str) -> None:
    """Let ``path`` name ``selector`` from now on; until then it says what it said before."""
    _written(path, f"{selector}\n".encode("ascii")).replace(path)
    _sync_folder(path.parent)


def _written(path: Path, data: bytes) -> Path:
    """A file beside ``path`` with all of ``data`` on disk."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _give_to_owner_above(temporary)
    except BaseException:
        temporary.unlink()
        raise
    return temporary


def _give_to_owner_above(path: Path) -> None:
    """As root: whose folder it is in, that one's service has to read it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _who(path: Path) -> str:
    """Whose the file is, and who we are."""
    with contextlib.suppress(OSError):
        return f"it belongs to user {path.stat().st_uid}, this process is user {os.geteuid()}"
    return f"this process is user {os.geteuid()}"
