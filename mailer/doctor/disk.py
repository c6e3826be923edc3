"""The disk under ``dataDir``: space, inodes, whether a file can be written and reaches it, and what kind of file system it is.

No threads, no locks. Writes one probe file and removes it. Fails with OSError where the folder cannot be looked at.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from mailer.doctor.case import Case
from mailer.doctor.finding import Finding, failed, ok, warning, worst_of

LOW_BYTES = 1 << 30  # spec 5: below it /health says "degraded"
LEAST_BYTES = 64 << 20  # less is gone with a few messages of the largest size
LOW_INODES = 10_000  # a message takes one file at most while it is large or parked
PROBE_BYTES = 4096
MOUNTS = Path("/proc/self/mountinfo")

_OVER_A_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs", "davfs"}
)
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_OCTAL = re.compile(r"\\([0-7]{3})")


def disk(case: Case) -> Finding:
    folder = case.config.data_dir.absolute()
    if not folder.is_dir():
        if folder.exists():
            return failed(f"dataDir {folder} is no folder", "name another in dataDir")
        return warning(f"dataDir {folder} is not there yet", "make it, or let the first start do so, and run this again")
    status = os.statvfs(folder)
    free_bytes = status.f_bavail * status.f_frsize
    return worst_of([
        _space(folder, free_bytes, status.f_favail if status.f_files else None),
        _writing(folder),
        _kind(kind_of(folder)),
    ])  # fmt: skip


def _space(folder: Path, free_bytes: int, free_inodes: int | None) -> Finding:
    """``free_inodes`` is None where the file system has no fixed number of them."""
    text = f"{folder} has {free_bytes / LOW_BYTES:.1f} GiB free"
    if free_inodes is not None and free_inodes < LOW_INODES:
        return warning(f"{text}, but room for {free_inodes} files only", "remove small files, or use a larger file system")
    if free_bytes < LEAST_BYTES:
        return failed(text, "make room: emails/archive and emails/*.eml fill most disks")
    if free_bytes < LOW_BYTES:
        return warning(f"{text}, and /health says degraded below 1", "make room: emails/archive and emails/*.eml fill most disks")
    return ok(text)


def _writing(folder: Path) -> Finding:
    """What every message asks for: a new file, written, fsync'd, its name as well, and removed again."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".doctor-", dir=folder)
    except OSError as fault:
        to_do = "run this as the user that mailer runs as; check owner, rights and whether the file system is mounted read-only"
        return failed(f"no file can be made in {folder}: {fault.strerror}", to_do)
    try:
        os.write(descriptor, bytes(PROBE_BYTES))
        os.fsync(descriptor)
    except OSError as fault:
        return failed(f"what is written to {folder} does not reach the disk: {fault.strerror}", "check the disk; see dmesg")
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)
    return ok("a file can be written and fsync'd")


def _kind(kind: str) -> Finding:
    if kind in _OVER_A_NETWORK:
        return warning(f"dataDir is on {kind}, a network file system", "use a local disk: locks and fsync may not hold there")
    if kind in _IN_MEMORY:
        return warning(f"dataDir is on {kind}, which is memory", "use a disk: accepted mail is lost when the machine stops")
    if kind == "overlay":
        return warning("dataDir is in a container's own layer", "mount a volume there: mail is lost with the container")
    return ok(f"on {kind or 'a file system of unknown kind'}")


def kind_of(folder: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system that ``folder`` is on, empty where that cannot be told (no /proc)."""
    real = folder.resolve()
    best, kind = -1, ""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, behind = line.partition(" - ")
        words = fields.split(" ")
        if len(words) < 5 or not behind:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), words[4]))
        if real.is_relative_to(point) and len(point.parts) >= best:  # a later mount on the same point hides the one before
            best, kind = len(point.parts), behind.split(" ")[0]
    return kind
