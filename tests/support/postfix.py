"""A private Postfix on a loopback port, as the real server that mailer hands its mail to.

Every path is the instance's own (configuration, queue, data, log, mailbox), so several run side by side and none
touches the machine's. Postfix's ``master`` must be root. Nothing stays behind, not even after ``kill -9`` of the tests
(``tests/support/group.py``).

Threads: one thread uses an instance; no locks. Fails with ``PostfixError``, whose text ends in Postfix's own log.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest

from mailer.mail.outcome import MailerError
from tests.support.certificates import Certificate
from tests.support.group import Group

START_TIMEOUT_SECONDS = 30.0  # a start takes under 2 s; the rest is for a machine busy with other tests
POLL_SECONDS = 0.02
_SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"  # a user's PATH often lacks sbin

_MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
tlsproxy  unix - - n - 0 tlsproxy
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
virtual   unix - n n - - virtual
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


class PostfixError(MailerError):
    """Postfix did not start, or did not do what was waited for; the text ends in its log."""


@dataclass(frozen=True, slots=True)
class Login:
    """The one login that is accepted, by PLAIN, LOGIN or CRAM-MD5."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What an instance does.

    ``login``: only those who log in may send; else every peer on loopback may. ``certificate``: STARTTLS is offered,
    and a login is offered only behind it. ``relay_to``: mail goes on to that host and port; else into a mailbox that
    ``Postfix.messages`` reads. ``settings`` are further lines of main.cf. Nothing else differs from the defaults of
    Debian's package but the chroot, which is off.
    """

    login: Login | None = None
    certificate: Certificate | None = None
    relay_to: tuple[str, int] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def unavailable(login: bool = False) -> str:
    """Why Postfix cannot be run here (``login``: with one), or an empty string when it can."""
    if os.geteuid() != 0:
        return "Postfix's master needs root to start"
    programs = ["postfix", "postconf", *(["saslpasswd2"] if login else [])]
    missing = [name for name in programs if find_program(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: apt-get install postfix sasl2-bin libsasl2-modules)"
    try:
        pwd.getpwnam("postfix")
    except KeyError:
        return "there is no user named postfix; Postfix's package was not set up"
    return ""


def require(login: bool = False) -> None:
    """Skip the test that calls this where Postfix cannot run; in CI (``CI`` or ``MAILER_CI`` is set) that is a failure."""
    reason = unavailable(login)
    if reason and (os.environ.get("CI") or os.environ.get("MAILER_CI")):
        pytest.fail(f"CI must run this test: {reason}")
    elif reason:
        pytest.skip(reason)


def find_program(name: str) -> str | None:
    """The path of an installed program, also where the PATH lacks ``/usr/sbin``."""
    return shutil.which(name, path=_SEARCH_PATH)


class Postfix:
    """A running instance, as a context manager: ``with Postfix(Setup(login=…)) as server: server.port``."""

    host = "127.0.0.1"

    def __init__(self, setup: Setup | None = None) -> None:
        self.setup = setup or Setup()
        self.port = 0
        self.folder = Path()
        self._master: Group | None = None

    def __repr__(self) -> str:
        return f"Postfix(port={self.port}, running={self._master is not None})"

    def __enter__(self) -> Postfix:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def group(self) -> int:
        """The process group of the master and all its daemons; 0 while it does not run."""
        return 0 if self._master is None else self._master.pid

    @property
    def queue_folder(self) -> Path:
        return self.folder / "queue"

    def start(self) -> None:
        """Start and return once it answers with its greeting. Raises PostfixError."""
        reason = unavailable(login=self.setup.login is not None)
        if reason:
            raise PostfixError(reason)
        # Not pytest's tmp_path: that is closed to other users, and Postfix's daemons run as several.
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-postfix-"))
        try:
            self.folder.chmod(0o755)
            self.port = free_port()
            self._configure()
            self._run("postfix", "-c", str(self.folder), "check")  # creates the queue's folders with their owners
            self._spawn_master()
            self._wait_for(self._is_greeting, START_TIMEOUT_SECONDS, "its greeting")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the instance and remove its files; any number of times."""
        master, self._master = self._master, None
        if master is not None:
            master.stop()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = Path()

    def messages(self) -> list[bytes]:
        """The delivered messages, oldest first, each with its Return-Path, X-Original-To and Delivered-To fields.

        One per recipient, with LF line ends, as Postfix writes them to a mailbox.
        """
        files = sorted((self.folder / "mail/all/new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_bytes() for path in files]

    def wait_for_messages(self, count: int, timeout_seconds: float = 30.0) -> list[bytes]:
        """``messages()`` once there are ``count``. Raises PostfixError when there are not in time."""
        self._wait_for(lambda: len(self.messages()) >= count, timeout_seconds, f"{count} messages")
        return self.messages()

    def queued(self) -> int:
        """How many messages are in the queue at this moment."""
        names = ("maildrop", "incoming", "active", "deferred")
        return sum(len(files) for name in names for _, _, files in os.walk(self.queue_folder / name))

    def log_text(self) -> str:
        try:
            return (self.folder / "log/maillog").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _configure(self) -> None:
        (self.folder / "log").mkdir()
        for name, user in (("data", "postfix"), ("mail", "nobody"), ("queue", "root")):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, user)
        settings = {**self._paths(), **self._delivery(), **self._tls(), **self._sasl(), **self.setup.settings}
        (self.folder / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (self.folder / "master.cf").write_text(_MASTER_CF.format(port=self.port))

    def _paths(self) -> dict[str, str]:
        return {
            "compatibility_level": "3.6",
            "config_directory": f"{self.folder}",
            "queue_directory": f"{self.queue_folder}",
            "data_directory": f"{self.folder}/data",
            "maillog_file": f"{self.folder}/log/maillog",
            "maillog_file_prefixes": f"{self.folder}",
            "multi_instance_enable": "no",
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": "postfix.test",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mydestination": "",
            "local_recipient_maps": "",
            "alias_maps": "",
            "alias_database": "",
            "notify_classes": "",
        }

    def _delivery(self) -> dict[str, str]:
        if self.setup.relay_to is not None:
            host, port = self.setup.relay_to
            return {"relayhost": f"[{host}]:{port}"}
        nobody = pwd.getpwnam("nobody")  # virtual(8) delivers under no uid below 100
        return {
            "virtual_mailbox_domains": "static:all",
            "virtual_mailbox_maps": "static:all/",
            "virtual_mailbox_base": f"{self.folder}/mail",
            "virtual_uid_maps": f"static:{nobody.pw_uid}",
            "virtual_gid_maps": f"static:{nobody.pw_gid}",
        }

    def _tls(self) -> dict[str, str]:
        certificate = self.setup.certificate
        if certificate is None:
            return {}
        return {
            "smtpd_tls_cert_file": f"{certificate.cert_file.resolve()}",
            "smtpd_tls_key_file": f"{certificate.key_file.resolve()}",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_auth_only": "yes",
        }

    def _sasl(self) -> dict[str, str]:
        login = self.setup.login
        if login is None:
            return {"mynetworks": "127.0.0.0/8", "smtpd_relay_restrictions": "permit_mynetworks, reject"}
        database = self.folder / "sasldb2"
        (self.folder / "sasl").mkdir()
        (self.folder / "sasl/smtpd.conf").write_text(
            f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\nmech_list: PLAIN LOGIN CRAM-MD5\n"
        )
        command = ("saslpasswd2", "-p", "-c", "-f", str(database), "-u", "postfix.test", login.user)
        self._run(*command, feed=login.password.encode())
        shutil.chown(database, "postfix")
        return {
            "mynetworks": "",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "cyrus",
            "smtpd_sasl_path": "smtpd",
            "cyrus_sasl_config_path": f"{self.folder}/sasl",
            "smtpd_sasl_local_domain": "postfix.test",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        }

    def _run(self, program: str, *arguments: str, feed: bytes = b"") -> None:
        command = [find_program(program) or program, *arguments]
        done = subprocess.run(command, input=feed, capture_output=True, check=False, timeout=START_TIMEOUT_SECONDS)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace") + self._output()
            raise PostfixError(f"{' '.join(command)}: exit status {done.returncode}\n{said}")

    def _spawn_master(self) -> None:
        """master itself, in the foreground: ``postfix start`` would leave a daemon behind when the tests are killed."""
        daemons = subprocess.check_output([find_program("postconf") or "postconf", "-c", self.folder, "-h", "daemon_directory"])
        master = Path(os.fsdecode(daemons.strip())) / "master"
        self._master = Group([master, "-d", "-c", self.folder], self.folder / "log/output", self.folder)

    def _is_greeting(self) -> bool:
        if self._master is not None and self._master.status is not None:
            raise PostfixError(f"master ended with status {self._master.status}\n{self._output()}")
        try:
            with socket.create_connection((self.host, self.port), timeout=START_TIMEOUT_SECONDS) as connection:
                return connection.recv(512).startswith(b"220 ")
        except OSError:
            return False

    def _wait_for(self, condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
        deadline = time.monotonic() + timeout_seconds
        pause = threading.Event()
        while not condition():
            if time.monotonic() > deadline:
                raise PostfixError(f"Postfix on port {self.port}: no {what} within {timeout_seconds:g} s\n{self._output()}")
            pause.wait(POLL_SECONDS)

    def _output(self) -> str:
        output = self.folder / "log/output"
        return (output.read_text(errors="replace") if output.exists() else "") + self.log_text()[-4000:]


def free_port() -> int:
    """A loopback port that was free a moment ago: Postfix and smtp-sink cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
