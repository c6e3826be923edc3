"""swaks as the client: what an administrator tries a relay with, in the ways that people use it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.certificates import issue, make_ca
from tests.support.postfix import free_port
from tests.support.relay import WAIT_SECONDS, Relay
from tests.support.upstream import Upstream

USER, PASSWORD = "listener", "l1stener secret"
CREDENTIALS = ("--auth-user", USER, "--auth-password", PASSWORD)


@dataclass
class Scene:
    relay: Relay
    upstream: Upstream
    ca_file: Path
    tls_port: int

    def swaks(self, *options: str, port: int = 0) -> subprocess.CompletedProcess[str]:
        """Send one message; swaks' exit status is 0 when it was taken."""
        server = ("--server", "127.0.0.1", "--port", str(port or self.relay.smtp_port), "--helo", "app.test")
        envelope = ("--from", "from@example.com", "--to", "a@example.org,b@example.org", "--body", "sent by swaks\n.dot\n")
        command = ["swaks", *server, *envelope, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)

    def expect_message(self, *options: str, port: int = 0) -> None:
        seen = len(self.upstream.messages)
        done = self.swaks(*options, port=port)
        assert done.returncode == 0, done.stdout + done.stderr
        message = self.upstream.wait_for(seen + 1)[seen]
        assert (message.sender, message.recipients) == ("from@example.com", ("a@example.org", "b@example.org"))
        assert b"\r\n\r\nsent by swaks\r\n.dot\r\n" in message.data


@pytest.fixture(scope="module")
def tls_in_swaks() -> None:
    support = subprocess.run(["swaks", "--support"], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    if "TLS supported" not in support.stdout:
        pytest.skip("swaks cannot do TLS (Debian: apt-get install libnet-ssleay-perl)")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if shutil.which("swaks") is None:
        reason = "swaks is not installed (Debian: apt-get install swaks)"
        if os.environ.get("CI") or os.environ.get("MAILER_CI"):
            pytest.fail(f"CI must run this test: {reason}")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("swaks")
    ca = make_ca(folder)
    certificate = issue(ca, "127.0.0.1", "localhost")
    port = free_port()
    tls = {"certFile": str(certificate.cert_file), "keyFile": str(certificate.key_file), "implicitPort": port}
    login = {"defaultUsername": USER, "defaultPassword": PASSWORD, "security": {"requireAuth": True, "logAllEmails": False}}
    with Upstream() as upstream, Relay(folder, [upstream], tls=tls, **login) as relay:
        yield Scene(relay, upstream, ca.cert_file, port)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("pipelined", [False, True], ids=["waiting", "pipelined"])
def test_swaks_logs_in_and_sends(scene: Scene, mechanism: str, pipelined: bool) -> None:
    scene.expect_message("--auth", mechanism, *CREDENTIALS, *(["--pipeline"] if pipelined else []))


@pytest.mark.usefixtures("tls_in_swaks")
@pytest.mark.parametrize("pipelined", [False, True], ids=["waiting", "pipelined"])
@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit TLS"])
def test_swaks_logs_in_and_sends_within_tls(scene: Scene, implicit: bool, pipelined: bool) -> None:
    options = ["--tls-on-connect" if implicit else "--tls", "--tls-ca-path", str(scene.ca_file), "--tls-verify"]
    options += ["--pipeline"] if pipelined else []
    scene.expect_message("--auth", "PLAIN", *CREDENTIALS, *options, port=scene.tls_port if implicit else 0)


def test_swaks_is_refused_with_a_wrong_password_and_without_a_login(scene: Scene) -> None:
    seen = len(scene.upstream.messages)
    wrong = scene.swaks("--auth", "PLAIN", "--auth-user", USER, "--auth-password", "wrong")
    assert wrong.returncode == 28, "swaks: authentication failed"
    assert "535 5.7.8" in wrong.stdout
    without = scene.swaks()
    assert without.returncode == 23, "swaks: MAIL was refused"
    assert "530 5.7.0" in without.stdout
    assert len(scene.upstream.messages) == seen


def test_swaks_sees_one_message_for_each_of_several_sends(scene: Scene) -> None:
    seen = len(scene.upstream.messages)
    for _ in range(3):
        assert scene.swaks("--auth", "PLAIN", *CREDENTIALS, "--pipeline").returncode == 0
    assert len(scene.upstream.wait_for(seen + 3)) == seen + 3
