"""TLS on the listener: STARTTLS, implicit TLS, what may not cross its threshold, a certificate that cannot be used."""

from __future__ import annotations

import base64
import contextlib
import smtplib
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.config.schema import Config, Secret, TlsConfig
from mailer.policy.auth import FREE_FAILURES
from mailer.smtp.server import CertificateError
from tests.smtp.serving import BASE, WAIT_SECONDS, Served, free_port, serve, with_tls
from tests.smtp.test_server import LAN, until
from tests.support.certificates import Certificate, client_context, issue, make_ca


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(ca: Certificate) -> Certificate:
    return issue(ca, "localhost", "127.0.0.1")


def with_login(config: Config) -> Config:
    return replace(
        config,
        default_username="app",
        default_password=Secret("s3cret"),
        security=replace(LAN, require_auth=True),
    )


def test_starttls_login_and_a_message(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_login(with_tls(certificate))) as served:
        with smtplib.SMTP("127.0.0.1", served.server.port, timeout=WAIT_SECONDS) as client:
            client.ehlo("client.example")
            assert client.has_extn("starttls")
            client.starttls(context=client_context(ca))
            client.ehlo("client.example")
            assert not client.has_extn("starttls")
            client.login("app", "s3cret")
            client.sendmail("a@example.com", ["b@example.org"], "Subject: x\n\nbody\n" * 5000)
        [(envelope, content)] = served.intake.messages
        assert envelope.options.login == "app"
        assert b" with ESMTPSA id " in content


def test_requiretls_is_offered_and_taken_under_tls_alone(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_login(with_tls(certificate))) as served:
        with smtplib.SMTP("127.0.0.1", served.server.port, timeout=WAIT_SECONDS) as client:
            client.ehlo("client.example")
            assert not client.has_extn("requiretls")
            client.login("app", "s3cret")
            assert client.mail("a@example.com", ["REQUIRETLS"])[0] == 555
            client.starttls(context=client_context(ca))
            client.ehlo("client.example")
            assert client.has_extn("requiretls")
            assert client.mail("a@example.com", ["REQUIRETLS"])[0] == 530
            client.login("app", "s3cret")
            assert client.mail("a@example.com", ["REQUIRETLS=yes"])[0] == 501
            client.sendmail("a@example.com", ["b@example.org"], "Subject: x\n\nx\n", ["REQUIRETLS"])
            client.sendmail("a@example.com", ["b@example.org"], "Subject: x\n\nx\n")
        assert [envelope.options.require_tls for envelope, _ in served.intake.messages] == [True, False]


def test_implicit_tls(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_tls(certificate, free_port())) as served:
        port = served.server.implicit_port
        assert port not in (0, served.server.port)
        with smtplib.SMTP_SSL("localhost", port, timeout=WAIT_SECONDS, context=client_context(ca)) as client:
            client.sendmail("a@example.com", ["b@example.org"], "Subject: x\n\nbody\n")
        assert b" with ESMTPS id " in served.intake.contents[0]


def test_starttls_is_not_offered_without_a_certificate() -> None:
    with serve() as served:
        client = served.client()
        client.reply()
        client.say(b"EHLO x")
        assert b"STARTTLS" not in client.sock.recv(4096)
        assert client.ask(b"STARTTLS").startswith("502 5.5.1")


def test_commands_sent_before_the_handshake_are_not_executed_after_it(ca: Certificate, certificate: Certificate) -> None:
    """CVE-2011-0411: in the same packet as STARTTLS."""
    with serve(with_tls(certificate)) as served:
        client = served.client()
        assert client.ask(b"", b"EHLO x")[:3] in ("250", "500")
        client.reply()
        client.say(b"STARTTLS", b"EHLO injected", b"MAIL FROM:<evil@example.com>")
        assert client.reply().startswith("220 2.0.0")
        client.start_tls(client_context(ca))
        assert client.ask(b"NOOP") == "250 2.0.0 Ok"
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith("503 5.5.1")  # not even the greeting was kept
        client.sock.close()


def test_login_and_greeting_from_before_the_handshake_are_forgotten(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_login(with_tls(certificate))) as served:
        client = served.client()
        client.reply()
        client.ask(b"EHLO x")
        assert client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0app\0s3cret")).startswith("235")
        client.ask(b"STARTTLS")
        client.start_tls(client_context(ca))
        assert client.ask(b"EHLO x")[:3] == "250"
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith("530 5.7.0")
        assert client.ask(b"STARTTLS").startswith("503 5.5.1")
        client.close()


def test_beyond_loopback_a_login_needs_tls(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_login(with_tls(certificate))) as served:
        client = served.client_from("192.0.2.7")
        client.reply()
        client.say(b"EHLO x")
        assert b"AUTH" not in client.sock.recv(4096)
        assert client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0app\0s3cret")).startswith("538 5.7.11")
        client.ask(b"STARTTLS")
        client.start_tls(client_context(ca))
        client.ask(b"EHLO x")
        assert client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0app\0s3cret")).startswith("235 2.7.0")
        client.close()


def test_beyond_loopback_guesses_are_counted_over_all_connections_of_an_address(
    ca: Certificate, certificate: Certificate
) -> None:
    pauses: list[float] = []
    served = Served(with_login(with_tls(certificate)))
    served.server._services = replace(served.server._services, pause=pauses.append)
    for _ in range(FREE_FAILURES + 2):
        client = served.client_from("192.0.2.7")
        client.reply()
        client.ask(b"EHLO x")
        client.ask(b"STARTTLS")
        client.start_tls(client_context(ca))
        client.ask(b"EHLO x")
        assert client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0app\0wrong")).startswith("535 5.7.8")
        client.close()
    assert pauses == [1.0, 2.0]
    assert served.server.close_sessions(WAIT_SECONDS)


def test_clear_text_on_the_implicit_port_ends_the_connection(certificate: Certificate) -> None:
    with serve(with_tls(certificate, free_port())) as served:
        client = served.client(port=served.server.implicit_port)
        client.sock.sendall(b"EHLO x\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert not client.sock.recv(4096).startswith(b"220")
        until(lambda: served.server.sessions == 0)


def test_a_probe_of_the_implicit_port_leaves_no_line(certificate: Certificate, caplog: pytest.LogCaptureFixture) -> None:
    with serve(with_tls(certificate, free_port())) as served:
        with caplog.at_level("DEBUG"):
            caplog.clear()
            for _ in range(3):
                served.client(port=served.server.implicit_port).close()
            until(lambda: served.server.sessions == 0)
        assert caplog.messages == []


def test_the_end_of_a_session_is_said_within_tls(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_tls(certificate, free_port())) as served:
        client = served.client(port=served.server.implicit_port)
        client.start_tls(client_context(ca))
        client.reply()
        assert served.server.close_sessions(WAIT_SECONDS)
        assert client.reply().startswith("421 4.3.2")
        assert client.reply() == ""  # a last word, not a cut: SSLEOFError would be raised


def test_a_new_certificate_is_used_after_a_reload(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_tls(certificate)) as served:
        served.server.configure(with_tls(issue(ca, "new.example")))
        client = served.client()
        client.reply()
        client.ask(b"STARTTLS")
        client.start_tls(client_context(ca), "new.example")
        client.close()


def test_a_certificate_that_cannot_be_used_leaves_the_old_one(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_tls(certificate)) as served:
        other = issue(ca, "other.example")
        with pytest.raises(CertificateError, match="do not make a pair"):
            served.server.configure(with_tls(Certificate(certificate.cert_file, other.key_file)))
        with pytest.raises(CertificateError, match=r"/nowhere/x\.pem"):
            served.server.configure(with_tls(Certificate(Path("/nowhere/x.pem"), other.key_file)))
        client = served.client()
        client.reply()
        client.ask(b"STARTTLS")
        client.start_tls(client_context(ca))
        client.close()


def test_a_key_with_a_password_is_refused_without_asking(tmp_path: Path, certificate: Certificate) -> None:
    locked = tmp_path / "locked.key"
    locked.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
        + base64.b64encode(b"\x30\x82\x00\x10" + b"\0" * 16).decode()
        + "\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    with pytest.raises(CertificateError):
        Served(with_tls(Certificate(certificate.cert_file, locked)))


def test_implicit_tls_needs_a_certificate() -> None:
    with pytest.raises(CertificateError, match=r"needs tls\.certFile"):
        Served(replace(BASE, tls=TlsConfig(implicit_port=free_port())))


def test_old_protocols_are_not_spoken(ca: Certificate, certificate: Certificate) -> None:
    with serve(with_tls(certificate, free_port())) as served:
        context = client_context(ca)
        assert served.server._rules.terms.tls is not None
        assert served.server._rules.terms.tls.minimum_version == ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", served.server.implicit_port), timeout=WAIT_SECONDS) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as sock:
                assert sock.version() in ("TLSv1.2", "TLSv1.3")
