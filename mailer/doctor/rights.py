"""Who may read what: the configuration with secrets in it, private keys, ``dataDir``; and whether we are who mailer runs as.

No threads, no locks; reads the configuration file. Fails with OSError where a file vanishes meanwhile, and with KeyUnusable.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from mailer.config.schema import Config
from mailer.doctor.case import Case
from mailer.doctor.finding import Finding, failed, ok, warning, worst_of
from mailer.doctor.secrecy import secrets_of
from mailer.signing.places import places_of

MAX_CONFIG_BYTES = 4 << 20  # what the configuration may be long


def permissions(case: Case) -> Finding:
    """All of them in one finding."""
    findings = [_configuration(case), *(_private_key(path) for path in _key_files(case.config)), *_data_dir(case.config.data_dir)]
    return worst_of(findings)


def _configuration(case: Case) -> Finding:
    path = case.config_path
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        text = file.read(MAX_CONFIG_BYTES).decode("utf-8", "replace")
    if mode & stat.S_IROTH and any(secret in text for secret in secrets_of(case.config)):
        return warning(f"{path} holds secrets and everybody may read it", f"chmod o= {path}")
    if mode & stat.S_IWOTH:
        return warning(f"everybody may change {path}", f"chmod o= {path}")
    return ok("the configuration and the keys are readable only by those who should")


def _key_files(config: Config) -> Iterator[Path]:
    if config.tls.key_file:
        yield Path(config.tls.key_file)
    if config.dkim.enabled:
        yield from (place.key_file for place in places_of(config.dkim))


def _private_key(path: Path) -> Finding:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as fault:
        to_do = "run this as the user that mailer runs as; check owner and rights"
        return failed(f"the key {path} cannot be read: {fault.strerror}", to_do)
    try:
        mode = os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        return warning(f"everybody may read the private key {path}", f"chmod o= {path}")
    return ok("the configuration and the keys are readable only by those who should")


def _data_dir(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        return
    status = folder.stat()
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        yield warning(f"everybody may replace what lies in {folder}", f"chmod o-w {folder}")
    for name in ("spool", "emails"):
        inner = folder / name
        if not inner.is_dir():
            continue
        status = inner.stat()
        if name == "spool" and status.st_mode & 0o077:
            yield warning(f"others than its owner may look into {inner}", f"chmod 700 {inner}")
        if status.st_uid != os.geteuid():
            owner, we = _name_of(status.st_uid), _name_of(os.geteuid())
            to_do = f"run this as the user that mailer runs as: sudo -u {owner} mailer doctor"
            yield warning(f"{inner} belongs to {owner}, so what {we} may do says little", to_do)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
