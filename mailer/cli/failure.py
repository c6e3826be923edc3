"""What stops the program: owns which exit code and which words an error ends with.

The codes are those of sysexits.h; ``mailer --help`` lists them. No threads, no locks.
"""

from __future__ import annotations

import errno
import os
import sys

from mailer.cli.pidfile import PidfileTaken, PidfileUnwritable
from mailer.config.problems import ConfigError
from mailer.mail.outcome import MailerError, errno_behind
from mailer.observe.log import LogFileError
from mailer.spool.store import SpoolError

_NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM})
_TRY_LATER = frozenset({errno.EADDRINUSE, errno.EAGAIN, errno.EWOULDBLOCK})
_MISCONFIGURED = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def exit_code(fault: BaseException) -> int:
    """The exit code for an error that stops the program."""
    if isinstance(fault, ConfigError):
        return os.EX_CONFIG
    if isinstance(fault, PidfileTaken):
        return os.EX_TEMPFAIL
    if isinstance(fault, PidfileUnwritable | LogFileError):
        return os.EX_CANTCREAT
    number = errno_behind(fault)
    for numbers, code in (
        (_NOT_PERMITTED, os.EX_NOPERM),
        (_TRY_LATER, os.EX_TEMPFAIL),
        (_MISCONFIGURED, os.EX_CONFIG),
    ):
        if number in numbers:
            return code
    if isinstance(fault, SpoolError | OSError) or number is not None:
        return os.EX_IOERR
    return os.EX_SOFTWARE


def report(fault: MailerError | OSError) -> int:
    """Say on standard error what is wrong; returns the exit code."""
    if isinstance(fault, ConfigError):
        lines = fault.problems
    elif isinstance(fault, OSError) and fault.filename is not None:
        lines = [f"{fault.filename}: {fault.strerror}"]
    else:
        lines = [str(fault)]
    for line in lines:
        print(f"mailer: {line}", file=sys.stderr)
    return exit_code(fault)
