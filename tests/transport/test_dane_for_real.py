"""DANE with everything real: a signed zone, unbound that validates it, and Postfix as the recipient's server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.config.schema import Config, DirectDeliveryConfig, DnsConfig
from mailer.dns.lookup import Tlsa
from mailer.events import Hub
from mailer.mail.outcome import Stage, Verdict
from mailer.transport.direct import DirectDelivery, Surroundings
from tests.support import postfix, unbound
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.dane import text_of, tlsa_of
from tests.support.nameserver import Nameserver
from tests.support.postfix import Postfix, Setup
from tests.support.unbound import SignedZone, Unbound, sign
from tests.transport.deliveries import delivery_to
from tests.transport.domains import send

HOST = "mx.secure.test"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """An authority that the program does not trust: all that holds comes from DNS."""
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(ca: Certificate) -> Certificate:
    """The host's, with the authority's behind it in one file."""
    made = issue(ca, HOST)
    made.cert_file.write_text(made.cert_file.read_text() + ca.cert_file.read_text())
    return made


@pytest.fixture(scope="module")
def server(certificate: Certificate) -> Iterator[Postfix]:
    postfix.require()
    unbound.require()
    with Postfix(Setup(certificate=certificate, settings={"smtpd_tls_received_header": "yes"})) as running:
        yield running


def zone_of(server: Postfix, *records: Tlsa) -> SignedZone:
    names = {"secure.test": {"MX": f"10 {HOST}"}, HOST: {"A": "127.0.0.1"}}
    if records:
        names[f"_{server.port}._tcp.{HOST}"] = {"TLSA": [text_of(record) for record in records]}  # type: ignore[dict-item]
    return sign("secure.test", names)


def deliver(server: Postfix, resolver: str, folder: Path, **settings: object) -> Verdict:
    direct = DirectDeliveryConfig(enabled=True, port=server.port, allow_private=True)
    config = Config(
        hostname="mailer.test",
        data_dir=folder,
        direct_delivery=replace(direct, **settings),  # type: ignore[arg-type]  # any of its fields
        dns=DnsConfig(nameservers=(resolver,)),
    )
    delivery = DirectDelivery(config, Hub(), Surroundings(trust_store=lambda: folder / "no-such-store.pem"))
    try:
        return send(delivery, delivery=delivery_to("b@secure.test"))[0]
    finally:
        delivery.close()


@pytest.mark.parametrize("usage", ["DANE-EE", "DANE-TA"])
def test_postfix_gets_mail_over_tls_that_its_signed_zone_vouches_for(
    server: Postfix, ca: Certificate, certificate: Certificate, tmp_path: Path, usage: str, caplog: pytest.LogCaptureFixture
) -> None:
    zone = zone_of(server, tlsa_of(certificate) if usage == "DANE-EE" else tlsa_of(ca, usage=2, selector=0))
    before = len(server.messages())
    with Nameserver() as nameserver, Unbound(nameserver, [zone]) as resolver, caplog.at_level("INFO"):
        nameserver.load(zone.zone)
        assert deliver(server, resolver.address, tmp_path).is_delivered
    assert b"using TLSv1.3" in server.wait_for_messages(before + 1)[-1]
    assert f"/{usage.lower()}" in caplog.text


@pytest.mark.parametrize("usage", [2, 3])
def test_a_record_that_names_another_certificate_keeps_mail_back(
    server: Postfix, tmp_path: Path, usage: int
) -> None:
    zone = zone_of(server, tlsa_of(make_ca(tmp_path / "other"), usage))
    before = len(server.messages())
    with Nameserver() as nameserver, Unbound(nameserver, [zone]) as resolver:
        nameserver.load(zone.zone)
        verdict = deliver(server, resolver.address, tmp_path)
    assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.TLS, 454, "4.7.5")
    assert len(server.messages()) == before


def test_a_record_whose_signature_does_not_hold_keeps_mail_back(
    server: Postfix, certificate: Certificate, tmp_path: Path
) -> None:
    """Somebody on the path puts a record of theirs beside the host's: unbound says SERVFAIL, and the host is not used."""
    zone = zone_of(server, tlsa_of(certificate))
    with Nameserver() as nameserver, Unbound(nameserver, [zone]) as resolver:
        nameserver.load(zone.zone)
        nameserver.add(f"_{server.port}._tcp.{HOST}", "TLSA", text_of(tlsa_of(make_ca(tmp_path / "other"))))
        verdict = deliver(server, resolver.address, tmp_path)
    assert (verdict.stage, verdict.reply.enhanced) == (Stage.TLS, "4.7.5")
    assert "TLSA" in verdict.reply.text


def test_a_zone_without_tlsa_records_is_opportunistic(server: Postfix, tmp_path: Path) -> None:
    zone = zone_of(server)
    with Nameserver() as nameserver, Unbound(nameserver, [zone]) as resolver:
        nameserver.load(zone.zone)
        assert deliver(server, resolver.address, tmp_path).is_delivered


def test_a_zone_that_nobody_vouches_for_binds_nobody(server: Postfix, tmp_path: Path) -> None:
    zone = zone_of(server, tlsa_of(make_ca(tmp_path / "other")))
    with Nameserver() as nameserver, Unbound(nameserver) as resolver:
        nameserver.load(zone.zone)
        assert deliver(server, resolver.address, tmp_path).is_delivered
