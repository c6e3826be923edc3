"""Exit codes: what stops the program decides which."""

from __future__ import annotations

import errno
import os

import pytest

from mailer.cli.failure import exit_code, report
from mailer.cli.pidfile import PidfileTaken, PidfileUnwritable
from mailer.config.problems import ConfigError
from mailer.mail.outcome import MailerError
from mailer.observe.log import LogFileError
from mailer.spool.store import SpoolError


def caused(fault: Exception, number: int) -> Exception:
    fault.__cause__ = OSError(number, os.strerror(number))
    return fault


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (ConfigError(["smtpPort: expected integer"]), 78),
        (PidfileTaken("held"), 75),
        (PidfileUnwritable("no folder"), 73),
        (caused(PidfileUnwritable("no right"), errno.EACCES), 73),
        (LogFileError("no folder"), 73),
        (caused(MailerError("port taken"), errno.EADDRINUSE), 75),
        (caused(MailerError("port 25"), errno.EACCES), 77),
        (caused(MailerError("not an address of this machine"), errno.EADDRNOTAVAIL), 78),
        (caused(SpoolError("locked"), errno.EAGAIN), 75),
        (SpoolError("damaged"), 74),
        (caused(SpoolError("read-only"), errno.EROFS), 74),
        (OSError(errno.EIO, "I/O error"), 74),
        (MailerError("anything else"), 70),
    ],
)
def test_each_fault_has_its_code(fault: Exception, code: int) -> None:
    assert exit_code(fault) == code


def test_all_problems_of_a_configuration_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ConfigError(["first: wrong", "second: wrong"])) == os.EX_CONFIG
    assert capsys.readouterr().err == "mailer: first: wrong\nmailer: second: wrong\n"
