"""TLS with the recipients' servers over the whole process: policies that keep mail back, and what the domains hear of it."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.rerouting import DEBUG
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.dane import text_of, tlsa_of
from tests.support.internet import Internet
from tests.support.relay import Relay, eventually
from tests.support.upstream import EXTENSIONS, Behaviour
from tests.support.web import WebServer, page
from tests.transport.test_peer import serving

DAY_SECONDS = 86400


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet() as made:
        yield made


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("ca"))


def relay_to(internet: Internet, folder: Path, **settings: Any) -> Relay:
    direct = {"enabled": True, "port": internet.port, "allowPrivate": True, **settings.pop("directDelivery", {})}
    dns = {"nameservers": [internet.dns.address], "timeout": 2}
    return Relay(folder, directDelivery=direct, dns=dns, logging=DEBUG, **settings)


def test_mail_waits_while_dane_and_certificate_disagree(internet: Internet, ca: Certificate, tmp_path: Path) -> None:
    certificate = issue(ca, "mx1.a.test")
    [server] = internet.domain("a.test", behaviour=Behaviour(tls=serving(certificate)))
    name = f"_{internet.port}._tcp.mx1.a.test"
    internet.dns.vouches = True
    internet.dns.add(name, "TLSA", text_of(tlsa_of(issue(ca, "old.a.test"))))
    with relay_to(internet, tmp_path) as relay:
        message_id = relay.send("wait for it", "b@a.test")
        relay.wait_for_line(f"message.parked id={message_id} owed=1")
        assert "DANE of mx1.a.test" in relay.output
        assert "MAIL" not in server.verbs()
        internet.dns.add(name, "TLSA", text_of(tlsa_of(certificate)))
        relay.http("/admin/retry-failed", "POST")
        relay.wait_for_line(f"message.finished id={message_id} delivered=1 failed=0")
        assert relay.wait_for_line(f"delivery.attempt id={message_id} .*dane-ee")
    assert server.messages[0].tls


def test_an_enforced_policy_outlives_a_restart_and_its_web_server(internet: Internet, ca: Certificate, tmp_path: Path) -> None:
    [server] = internet.domain("a.test", behaviour=Behaviour(tls=serving(issue(ca, "mx.elsewhere.test"))))
    address = internet.address()
    internet.dns.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=1;"')
    internet.dns.add("mta-sts.a.test", "A", address)
    policy = "version: STSv1\nmode: enforce\nmx: *.a.test\nmax_age: 604800\n"
    relay = relay_to(internet, tmp_path)
    try:
        with WebServer(lambda _request: page(policy), serving(issue(ca, "mta-sts.a.test")), (address, 443)) as web:
            relay.start({"SSL_CERT_FILE": str(ca.cert_file)})
            relay.wait_for_line(f"message.parked id={relay.send('first', 'b@a.test')} owed=1")
            assert len(web.requests) == 1
    except PermissionError:
        pytest.skip("this user may not listen on port 443")
    with relay:
        relay.kill()
        internet.dns.remove("_mta-sts.a.test")
        relay.start({"SSL_CERT_FILE": str(ca.cert_file)})
        since = len(relay.lines)
        message_id = relay.send("second", "b@a.test")
        relay.wait_for_line(f"message.parked id={message_id} owed=1", since)
        assert "MTA-STS of a.test" in relay.wait_for_line(f"delivery.attempt id={message_id}")
    assert "MAIL" not in server.verbs()


def test_requiretls_that_nobody_offers_fails_for_good_and_at_once(internet: Internet, ca: Certificate, tmp_path: Path) -> None:
    certificate = issue(ca, "mx1.a.test", "relay.test")
    plain = Behaviour(tls=serving(certificate))
    [without] = internet.domain("a.test", behaviour=plain)
    [offering] = internet.domain(
        "b.test", behaviour=Behaviour(tls=serving(issue(ca, "mx1.b.test")), extensions=(*EXTENSIONS, "REQUIRETLS"))
    )
    tls = {"certFile": str(certificate.cert_file), "keyFile": str(certificate.key_file)}
    internet.dns.vouches = True
    relay = relay_to(internet, tmp_path, tls=tls)
    with relay.start({"SSL_CERT_FILE": str(ca.cert_file)}), relay.connect() as client:
        client.starttls()
        client.ehlo()
        assert "requiretls" in client.esmtp_features
        client.sendmail("a@client.test", ["b@a.test", "c@b.test"], b"Subject: x\r\n\r\nx\r\n", ["REQUIRETLS"])
        relay.wait_for_line("message.finished .*delivered=1 failed=1")
    assert "MAIL" not in without.verbs()
    assert "REQUIRETLS" in offering.messages[0].parameters


def test_a_domain_hears_of_its_day_by_mail_through_our_own_spool(internet: Internet, tmp_path: Path) -> None:
    """The counts of the day before yesterday, as an earlier run left them: no test waits for midnight."""
    [server] = internet.domain("reports.test")
    internet.dns.add("_smtp._tls.a.test", "TXT", '"v=TLSRPTv1; rua=mailto:tls@reports.test"')
    day = int(time.time() // DAY_SECONDS) - 2
    relay = relay_to(internet, tmp_path, tlsReports={"enabled": True, "from": "tls@mailer.test"})
    (relay.data / "spool").mkdir(mode=0o700)
    counts = [[day, ["a.test", "no-policy-found", [], []], 41, 1, [["certificate-expired", "mx1.a.test", "", "", "expired", 1]]]]
    (relay.data / "spool" / "tlsrpt.json").write_text(json.dumps(counts))
    with relay:
        [message] = server.wait_for(1)
        relay.wait_for_line("tlsrpt.sent domain=a.test")
        assert relay.terminate() == 0
    assert (message.sender, message.recipients) == ("tls@mailer.test", ("tls@reports.test",))
    report = email.message_from_bytes(message.data, policy=email.policy.SMTP)
    [attached] = report.iter_attachments()
    packed = attached.get_content()
    [told] = json.loads(gzip.decompress(packed))["policies"]
    assert told["summary"] == {"total-successful-session-count": 41, "total-failure-session-count": 1}
    kept = json.loads((relay.data / "spool" / "tlsrpt.json").read_text())
    assert kept == [], "what was told is forgotten, and the report's own session is not counted"


def test_counts_are_kept_when_the_program_ends(internet: Internet, ca: Certificate, tmp_path: Path) -> None:
    internet.domain("a.test", behaviour=Behaviour(tls=serving(issue(ca, "mx1.a.test"))))
    with relay_to(internet, tmp_path, tlsReports={"enabled": True}) as relay:
        relay.wait_for_line(f"message.finished id={relay.send('counted', 'b@a.test')} ")
        assert relay.terminate() == 0
        path = relay.data / "spool" / "tlsrpt.json"
        eventually(path.exists, "the counts")
        [[_, name, successes, failures, _]] = json.loads(path.read_text())
    assert (name[:2], successes, failures) == (["a.test", "no-policy-found"], 1, 0)
