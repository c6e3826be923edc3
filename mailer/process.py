"""The process: owns what must be settled with the operating system before and while we serve, above all that the
one-file executable is two processes and a folder.

The executable's first process (the launcher) unpacks itself into a folder ``_MEI…`` of ``$TMPDIR`` or ``/tmp``, starts
itself again as its child, forwards signals to it and waits; the child is the interpreter that runs us. So:

- the child dies with its launcher (``tie_to_launcher``), or ``kill -9`` of the pid that everybody sees would leave the
  ports taken by a process that nobody knows;
- the folder is locked for as long as the child lives (``UnpackFolder``): a lock held by a process ends with it, however
  it ends, so a folder without a lock is a dead process's and may go. ``systemd-tmpfiles`` leaves locked folders alone;
  other cleaners look at times, so those are renewed;
- everything that the configuration may need later is imported before we serve (``preload``): should the folder vanish all
  the same, or the executable be replaced by a newer one, a running process does not notice. What nobody asks for stays
  out: direct delivery and signatures stand on libraries of 15 MB in each of two processes.

No threads, no locks: all of it runs in the main thread. Nothing here stops the program; what cannot be done is logged.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import logging
import os
import resource
import shutil
import signal
import stat
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from mailer.config.problems import ConfigError
from mailer.config.schema import Config

log = logging.getLogger(__name__)

MARKER = "mailer.unpacked"
"""A file of this name lies in every unpack folder of ours (build.spec puts it there); PyInstaller's names do not tell."""

UNPACKING_SECONDS = 120.0
"""A folder changed within this time may be one whose launcher has not started its child, so has no lock yet. Unpacking
takes under a second; a machine may be very slow, and nothing is lost by waiting for the next start."""

REFRESH_SECONDS = 6 * 3600.0
"""How often the folder's times are renewed: cleaners that go by them spare what was touched within a day or more."""

MAX_OPEN_FILES = 65536
"""Enough for any ``maxConnections`` in use, where a hard limit of a billion would make closing "all" descriptors slow."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_LATER_IMPORTS = (
    "encodings.idna",  # socket.getaddrinfo, ssl: any host name given as str
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.punycode",  # str.encode("idna") of a domain beyond ASCII
    "encodings.utf_8_sig",
    "stringprep",
    "unicodedata",
    "ast",  # traceback, from 3.13 on
    "linecache",
    "tokenize",
    "traceback",
    "_strptime",
    "_colorize",
    "_pyrepl",
)
"""What the standard library imports in the middle of a function; names that an interpreter lacks are passed over."""


_DIRECT_DELIVERY = (
    "mailer.transport.direct",
    "cryptography.x509.verification",  # DANE
    "cryptography.hazmat.primitives.serialization",
)
_SIGNING = (
    "dkim",
    "dkim.canonicalization",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.asymmetric.padding",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "cryptography.hazmat.primitives.serialization",
)
"""What the program imports in the middle of a function, for the configurations that need it."""


def is_frozen() -> bool:
    """Whether this is the executable rather than a checkout."""
    return bool(getattr(sys, "frozen", False))


def main_pid() -> int:
    """The pid that signals are sent to: the launcher's in the executable (it forwards them), else our own."""
    return os.getppid() if is_frozen() and _is_same_program(os.getppid()) else os.getpid()


def tie_to_launcher() -> None:
    """Die with the launcher; at once if it is dead already. Does nothing in a checkout."""
    if not is_frozen():
        return
    _die_with_parent()
    # The launcher may have died between starting us and the line above; then our parent is somebody else.
    if not _is_same_program(os.getppid()):
        os.kill(os.getpid(), signal.SIGKILL)


def tie_to_parent(pid: int) -> None:
    """Die with the process that forked this one; at once if it is dead already."""
    _die_with_parent()
    if os.getppid() != pid:
        os.kill(os.getpid(), signal.SIGKILL)


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        log.warning("process.untied error=%r", os.strerror(ctypes.get_errno()))


def _is_same_program(pid: int) -> bool:
    """Whether the process runs the same file as we do; True where that cannot be seen, so as never to kill in doubt."""
    try:
        theirs, ours = Path(f"/proc/{pid}/exe").stat(), Path("/proc/self/exe").stat()
    except (ProcessLookupError, FileNotFoundError):
        return not Path("/proc/self/exe").exists()  # no /proc at all: nothing is known
    except OSError:
        return pid != 1
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def program_command() -> list[str]:
    """How this program is started anew: the command line up to the first argument."""
    if is_frozen():
        return [sys.executable]
    return [sys.executable, str(Path(sys.argv[0]).absolute())]


def fresh_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a new process of this program, as if it were started from a shell.

    Without PYINSTALLER_RESET_ENVIRONMENT the executable would take itself for the child of a launcher and share our
    unpack folder, which goes when we end. The launcher also puts that folder in front of LD_LIBRARY_PATH.
    """
    fresh = dict(environ)
    if is_frozen():
        fresh["PYINSTALLER_RESET_ENVIRONMENT"] = "1"
        original = fresh.pop("LD_LIBRARY_PATH_ORIG", None)
        fresh.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            fresh["LD_LIBRARY_PATH"] = original
    return fresh


def share_one_processor(allowed: Collection[int] | None = None, neighbour: int | None = None) -> int | None:
    """Keep all threads on one processor, where the interpreter lets one thread run at a time anyway. Returns which.

    A message passes through several threads; each hand-over between two processors costs a wake-up across them and cold
    caches. On one, a message takes about two thirds of the processor time, and the rate rises by half (``bench``).
    Which one does not matter: the scheduler keeps other work off it. It is one of ``allowed`` (default: those that we may
    use), and another than ``neighbour``, our other process's, where there is one. None where threads do run in parallel.
    """
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)  # 3.13; before it there always is one
    if not has_lock():
        return None
    try:
        processors = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
        others = [processor for processor in processors if processor != neighbour] or processors
        chosen = others[os.getpid() % len(others)]
        os.sched_setaffinity(0, {chosen})
    except OSError as fault:
        log.debug("process.not_pinned error=%r", str(fault))
        return None
    return chosen


def raise_open_files_limit(wanted: int) -> int:
    """Raise the soft limit on open files to the hard one; returns the limit that now holds.

    Shells and service managers give 1,024, which ``maxConnections`` alone would use up. A warning is logged if even the
    hard limit is below ``wanted``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < ceiling:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
            soft = ceiling
    limit = MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
    if limit < wanted:
        log.warning("process.open_files limit=%d wanted=%d action=%r", limit, wanted, "raise LimitNOFILE or lower maxConnections")
    return limit


def preload(config: Config) -> None:
    """Import what would be imported later, so that the unpack folder and the executable's file are not needed again.

    Raises ConfigError where a reload asks for what was not asked for at the start, and the executable is no longer there.
    """
    if not is_frozen():
        return
    asked = {
        "directDelivery.enabled": _DIRECT_DELIVERY if config.direct_delivery.enabled else (),
        "dkim.enabled": _SIGNING if config.dkim.enabled else (),
    }
    for setting, names in {"": _LATER_IMPORTS, **asked}.items():
        missing = [name for name in names if name not in sys.modules]
        if setting and missing and not _is_executable_in_place():
            raise ConfigError([f"{setting}: needs a restart: this executable was replaced or its unpack folder removed"])
        for name in missing:
            try:
                importlib.import_module(name)
            except ImportError as fault:
                log.debug("process.preload module=%s error=%r", name, str(fault))


def _is_executable_in_place() -> bool:
    """Whether what we were unpacked from, and what was unpacked, are still there to import from."""
    try:
        on_disk, ours = Path(sys.executable).stat(), Path("/proc/self/exe").stat()
        return (on_disk.st_dev, on_disk.st_ino) == (ours.st_dev, ours.st_ino) and (_unpacked_into() / MARKER).is_file()
    except OSError:
        return False


def _unpacked_into() -> Path:
    return Path(getattr(sys, "_MEIPASS", ""))


class UnpackFolder:
    """The folder of the running executable: locked while we live, its times renewed, those of the dead swept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None  # holds the lock
        self._refresh_at = 0.0

    def __repr__(self) -> str:
        return f"UnpackFolder({str(self.path)!r}, locked={self._descriptor is not None})"

    @classmethod
    def of_this_process(cls) -> UnpackFolder | None:
        """The folder that this process was unpacked into; None in a checkout."""
        path = _unpacked_into()
        return cls(path) if is_frozen() and path.name.startswith("_MEI") else None

    def lock(self) -> None:
        """Hold the folder until this process ends. A shared lock: nothing else of ours wants it but a sweep."""
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as fault:  # a file system without locks: the age of the files must do
            log.warning("unpack.unlocked path=%r error=%r", str(self.path), fault.strerror)

    def refresh(self, now: float) -> None:
        """Renew the times of everything in the folder, once in ``REFRESH_SECONDS``."""
        if now < self._refresh_at:
            return
        self._refresh_at = now + REFRESH_SECONDS
        try:
            for folder, _, names in os.walk(self.path):
                for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118 - os.walk gives str
                    os.utime(path, (now, now), follow_symlinks=False)
        except OSError as fault:
            log.warning("unpack.refresh path=%r error=%r effect=%r", str(self.path), fault.strerror, "none: all is loaded")

    def sweep_stale(self, now: float) -> list[Path]:
        """Remove folders beside ours whose processes are dead; returns them. See the module's text for how that is known."""
        removed = []
        for path in self.path.parent.glob("_MEI*"):
            if path != self.path and _is_stale(path, now):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
                log.info("unpack.swept path=%r", str(path))
        return removed


def _is_stale(path: Path, now: float) -> bool:
    """Whether it is an unpack folder of this program and user, past unpacking, that no living process has locked."""
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        if not stat.S_ISREG((path / MARKER).lstat().st_mode):
            return False
        if max(status.st_mtime, status.st_ctime) > now - UNPACKING_SECONDS:
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
