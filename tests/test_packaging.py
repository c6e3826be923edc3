"""The one-file executable as people run it: bare environment, signals, its two processes and its unpack folder.

In CI the executable is built if need be and nothing here is skipped; elsewhere ``make build`` first.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dkim  # type: ignore[import-untyped]
import pytest

from mailer import __version__
from mailer.process import MARKER
from tests.cli.program import (
    EXECUTABLE,
    ROOT,
    WAIT_SECONDS,
    Program,
    children_of,
    running,
    send_message,
    wait_for_end,
    write_config,
)
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.dane import text_of, tlsa_of
from tests.support.internet import Internet
from tests.support.upstream import Behaviour, Login, Stall, Upstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MAX_BYTES = 40_000_000
READ_ONLY_FOLDER = "/proc"
"""A working directory in which not even root can make a file."""


def newest_source() -> float:
    sources = [ROOT / "mailer.py", ROOT / "build.spec", *(ROOT / "mailer").rglob("*.py")]
    return max(path.stat().st_mtime for path in sources)


@pytest.fixture(scope="module")
def executable() -> Path:
    if os.environ.get("CI"):
        subprocess.run(["make", "build"], cwd=ROOT, check=True, capture_output=True, timeout=500)
    elif not EXECUTABLE.exists():
        pytest.skip("dist/mailer is not there: make build")
    elif EXECUTABLE.stat().st_mtime < newest_source():
        pytest.skip("dist/mailer is older than the sources: make build")
    return EXECUTABLE


@pytest.fixture
def unpack_parent() -> Iterator[Path]:
    """What TMPDIR names: a folder that holds nothing but unpack folders."""
    with tempfile.TemporaryDirectory(prefix="mailer-test-") as folder:
        yield Path(folder)


def bare(executable: Path, unpack_parent: Path, *arguments: str) -> contextlib.AbstractContextManager[Program]:
    """The executable in an environment that holds TMPDIR alone, in a folder that nothing can be written to."""
    return running(
        *arguments, command=[str(executable)], env={"TMPDIR": str(unpack_parent)}, cwd=READ_ONLY_FOLDER
    )


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_it_is_small(executable: Path) -> None:
    assert executable.stat().st_size < MAX_BYTES


def test_it_says_its_version_and_interpreter(executable: Path) -> None:
    answer = subprocess.run([executable, "--version"], env={}, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True)
    assert answer.stdout.startswith(f"mailer {__version__} (executable, CPython 3.")


def test_it_checks_a_configuration(executable: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, defaultUsername="app", defaultPassword="pa55-w0rd-of-mine")
    answer = subprocess.run(
        [executable, "check", "-config", config], env={}, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True
    )
    assert json.loads(answer.stdout)["defaultUsername"] == "app"
    assert "pa55" not in answer.stdout + answer.stderr
    assert "certificate store: /" in answer.stderr


def test_it_serves_from_a_bare_environment_and_a_read_only_folder(
    executable: Path, tmp_path: Path, unpack_parent: Path
) -> None:
    with bare(executable, unpack_parent, "-config", str(write_config(tmp_path))) as program:
        smtp_port, http_port = program.wait_ready()
        send_message(smtp_port)
        assert get(http_port, "/health")[0] == 200
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert len(list((tmp_path / "data" / "emails").glob("*.eml"))) == 1
    assert list(unpack_parent.iterdir()) == []


def test_killing_the_launcher_leaves_nothing_that_serves(executable: Path, tmp_path: Path, unpack_parent: Path) -> None:
    with bare(executable, unpack_parent, "-config", str(write_config(tmp_path))) as program:
        smtp_port, _ = program.wait_ready()
        [child] = children_of(program.pid)
        listening = children_of(child)  # it dies of the child's death, a moment later; without it, the child listens itself
        program.signal(signal.SIGKILL)
        for pid in (child, *listening):
            wait_for_end(pid)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", smtp_port)).close()


def test_sigterm_to_both_processes_drains(executable: Path, tmp_path: Path, unpack_parent: Path) -> None:
    """As from a terminal or a service manager: the child gets it from the group, and once more from its launcher."""
    with Upstream() as upstream:
        upstream.on("dot", Stall("250 2.0.0 taken"))
        provider = {"host": upstream.host, "port": upstream.port}
        config = write_config(tmp_path, forwardSMTP=True, forwardProviders=[provider])
        with bare(executable, unpack_parent, "-config", str(config)) as program:
            smtp_port, _ = program.wait_ready()
            send_message(smtp_port)
            upstream.wait_until(lambda: any(line == "DATA" for _, line in upstream.commands))
            os.killpg(program.pid, signal.SIGTERM)
            program.wait_for("stop.begun")
            upstream.release()
            assert program.wait() == 0
        assert [one.accepted for one in upstream.transactions] == [True]


def test_the_unpack_folder_is_marked_and_locked_while_it_serves(
    executable: Path, tmp_path: Path, unpack_parent: Path
) -> None:
    with bare(executable, unpack_parent, "-config", str(write_config(tmp_path))) as program:
        program.wait_ready()
        [folder] = unpack_parent.iterdir()
        assert (folder / MARKER).is_file()
        descriptor = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


def test_it_goes_on_without_its_unpack_folder_and_its_file(executable: Path, tmp_path: Path, unpack_parent: Path) -> None:
    """A cleaner of temporary files, or an upgrade that replaces the executable, must not trouble one that runs."""
    copy = tmp_path / "mailer"
    shutil.copy2(executable, copy)
    authority = make_ca(tmp_path / "ca")
    with Upstream(Behaviour(tls=server_context(issue(authority, "localhost")), login=Login("u", "p"))) as upstream:
        # Named, verified and logged in to: looking up names, TLS and logins are where modules are imported late.
        sound = {"host": "localhost", "port": upstream.port, "username": "u", "password": "p", "priority": 1}
        broken = {"host": "127.0.0.1", "port": 1, "priority": 0}
        config = write_config(tmp_path, forwardSMTP=True, forwardProviders=[sound, broken])
        environ = {"TMPDIR": str(unpack_parent), "SSL_CERT_FILE": str(authority.cert_file)}
        with running("-config", str(config), command=[str(copy)], env=environ, cwd=READ_ONLY_FOLDER) as program:
            smtp_port, http_port = program.wait_ready()
            [folder] = unpack_parent.iterdir()
            shutil.rmtree(folder)
            copy.unlink()
            copy.write_text("the next version")
            send_message(smtp_port)
            [arrived] = upstream.wait_for(1)
            assert (arrived.tls, arrived.login) == (True, "u")
            assert [get(http_port, path)[0] for path in ("/health", "/metrics", "/readyz", "/absent")] == [200, 200, 200, 404]
            config.write_text('{"smtpPort": "x"}')
            program.signal(signal.SIGHUP)
            program.wait_for("reload.rejected")
            write_config(tmp_path, smtpPort=smtp_port, directDelivery={"enabled": True})
            program.signal(signal.SIGHUP)
            program.wait_for("directDelivery.enabled: needs a restart")
            write_config(tmp_path, smtpPort=smtp_port)
            program.signal(signal.SIGHUP)
            program.wait_for("reload.done")
            send_message(smtp_port)
            program.wait_for("saved as")
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
            said = "".join(program.lines)
    assert "ModuleNotFoundError" not in said
    assert "Traceback" not in said
    assert len(list((tmp_path / "data" / "emails").glob("*.eml"))) == 1


def test_it_signs_delivers_directly_and_reports_without_its_unpack_folder_and_its_file(
    executable: Path, tmp_path: Path, unpack_parent: Path
) -> None:
    """Over TLS that DANE vouches for, with a key of its own making; the sender, of another domain, hears of what is refused."""
    copy, key, record = tmp_path / "mailer", *generated_key(executable, tmp_path)
    shutil.copy2(executable, copy)
    certificate = issue(make_ca(tmp_path / "ca"), "mx1.recipient.test")
    with Internet() as internet:
        [recipient] = internet.domain("recipient.test", behaviour=Behaviour(tls=server_context(certificate)))
        [sender] = internet.domain("sender.test")
        recipient.on("rcpt", {"nobody@recipient.test": "550 5.1.1 no such user"})
        internet.dns.vouches = True
        internet.dns.add(f"_{internet.port}._tcp.mx1.recipient.test", "TLSA", text_of(tlsa_of(certificate)))
        config = write_config(
            tmp_path,
            hostname="relay.test",
            directDelivery={"enabled": True, "port": internet.port, "allowPrivate": True},
            dns={"nameservers": [internet.dns.address]},
            dkim={"enabled": True, "domain": "signer.test", "privateKeyPath": str(key)},
            bounce={"enabled": True},
        )
        with running("-config", str(config), command=[str(copy)], env={"TMPDIR": str(unpack_parent)}) as program:
            smtp_port, _ = program.wait_ready()
            [folder] = unpack_parent.iterdir()
            shutil.rmtree(folder)
            copy.unlink()
            copy.write_text("the next version")
            with smtplib.SMTP("127.0.0.1", smtp_port, timeout=WAIT_SECONDS) as client:
                mail = b"From: a@signer.test\r\nSubject: hello\r\n\r\nA message.\r\n"
                client.sendmail("a@sender.test", ["b@recipient.test", "nobody@recipient.test"], mail)
            [arrived], [report] = recipient.wait_for(1), sender.wait_for(1)
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
            said = "".join(program.lines)
    assert arrived.tls
    assert "dane-ee" in said
    assert dkim.verify(arrived.data, dnsfunc=lambda name, **_: record if name == b"mail._domainkey.signer.test." else b"")
    assert (report.sender, report.recipients) == ("", ("a@sender.test",))
    assert b"5.1.1" in report.data
    assert "ModuleNotFoundError" not in said
    assert "Traceback" not in said


def generated_key(executable: Path, folder: Path) -> tuple[Path, bytes]:
    """The file of a key that ``mailer dkim generate`` has made, and the record that it printed."""
    command = [str(executable), "dkim", "generate", "--domain", "signer.test", "-config", str(write_config(folder))]
    said = subprocess.run(command, env={}, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True).stdout
    [path] = (folder / "data").rglob("*.private")
    found = re.search(r"^Value: (.+)$", said, re.MULTILINE)
    assert found, said
    return path, found[1].encode()


def test_it_examines_a_domain(executable: Path, tmp_path: Path) -> None:
    with Internet() as internet:
        internet.domain("recipient.test")
        config = write_config(tmp_path, dns={"nameservers": [internet.dns.address]})
        command = [str(executable), "doctor", "recipient.test", "--json", "-config", str(config)]
        answer = subprocess.run(command, env={}, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert answer.stderr == ""
    assert "mx1.recipient.test" in answer.stdout
    assert isinstance(json.loads(answer.stdout), dict | list)


def server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    return context


def test_it_serves_in_the_background(executable: Path, tmp_path: Path, unpack_parent: Path) -> None:
    config, pidfile = write_config(tmp_path), tmp_path / "mailer.pid"
    command = [str(executable), "--daemon", "-config", str(config), "--pidfile", str(pidfile)]
    environ = {"TMPDIR": str(unpack_parent)}
    subprocess.run(command, env=environ, cwd=READ_ONLY_FOLDER, check=True, timeout=WAIT_SECONDS, capture_output=True)
    launcher = int(pidfile.read_text())
    try:
        [child] = children_of(launcher)
        assert os.getsid(launcher) == launcher
        assert len(list(unpack_parent.iterdir())) == 1  # the starter's has gone, the background's own is there
        os.kill(launcher, signal.SIGTERM)
        wait_for_end(child)
        wait_for_end(launcher)
        assert not pidfile.exists()
        assert list(unpack_parent.iterdir()) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(launcher, signal.SIGKILL)
        wait_for_end(launcher)


def test_a_start_in_the_background_that_fails_says_why(executable: Path, tmp_path: Path, unpack_parent: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        config = write_config(tmp_path, smtpPort=holder.getsockname()[1])
        command = [str(executable), "--daemon", "-config", str(config)]
        environ = {"TMPDIR": str(unpack_parent)}
        answer = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert answer.returncode == os.EX_TEMPFAIL
    assert "taken" in answer.stderr
    assert list(unpack_parent.iterdir()) == []
