"""MTA-STS and TLS reports: records from a nameserver, policies from a web server with a certificate."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from mailer.config.schema import Config, DirectDeliveryConfig
from mailer.doctor.case import Case
from mailer.doctor.finding import Status
from mailer.doctor.policies import mta_sts, tls_rpt
from tests.doctor.cases import make_case
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.nameserver import Nameserver
from tests.support.web import WebServer, page

POLICY = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 86400\n"
MINUTE_SECONDS = 60


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver({"example.test": {"MX": "10 mx.example.test"}, "mta-sts.example.test": {"A": "127.0.0.1"}}) as running:
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Certificate]:
    ca = make_ca(tmp_path_factory.mktemp("certificates"))
    return ca, issue(ca, "mta-sts.example.test")


@pytest.fixture
def web(certificates: tuple[Certificate, Certificate]) -> Iterator[WebServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates[1].cert_file, certificates[1].key_file)
    with WebServer(lambda request: page(POLICY), context) as running:
        yield running


@pytest.fixture
def case(nameserver: Nameserver, web: WebServer, certificates: tuple[Certificate, Certificate]) -> Case:
    nameserver.add("_mta-sts.example.test", "TXT", '"v=STSv1; id=20260101T000000"')
    config = Config(direct_delivery=DirectDeliveryConfig(enabled=True, allow_private=True))
    return make_case(config, nameserver, https_port=web.port, trust_store=lambda: certificates[0].cert_file)


def test_a_policy_that_allows_the_mail_servers_is_ok(case: Case, web: WebServer) -> None:
    found = mta_sts(case)
    assert (found.status, "mode enforce" in found.text) == (Status.OK, True)
    assert [(request.host, request.path) for request in web.requests] == [("mta-sts.example.test", "/.well-known/mta-sts.txt")]


@pytest.mark.parametrize(("mode", "status"), [("enforce", Status.FAILED), ("testing", Status.WARNING), ("none", Status.OK)])
def test_a_mail_server_that_the_policy_does_not_allow_is_told(
    case: Case, nameserver: Nameserver, web: WebServer, mode: str, status: Status
) -> None:
    nameserver.add("example.test", "MX", "20 backup.example.test")
    web.answer = lambda request: page(POLICY.replace("enforce", mode))
    assert mta_sts(case).status is status


@pytest.mark.parametrize(
    "answer",
    [
        page("no policy", status="404 Not Found"),
        page(POLICY, kind="text/html"),
        page("version: STSv2\n"),
        page(POLICY * 2000),
        [b"\x00\xff"],
    ],
    ids=["404", "HTML", "another version", "endless", "nonsense"],
)
def test_a_policy_that_others_cannot_use_fails(case: Case, web: WebServer, answer: list[bytes]) -> None:
    web.answer = lambda request: answer
    found = mta_sts(case)
    assert (found.status, "https://mta-sts.example.test/.well-known/mta-sts.txt" in found.do) == (Status.FAILED, True)


def test_a_web_server_that_cannot_be_trusted_fails(case: Case, tmp_path: Path) -> None:
    other = make_ca(tmp_path / "other")
    assert mta_sts(make_case(case.config, domain=case.domain)).status is Status.WARNING  # no DNS: nobody knows
    distrusting = Case(**(vars(case) | {"trust_store": lambda: other.cert_file}))
    assert "certificate" in mta_sts(distrusting).text


def test_the_web_server_s_date_is_kept_for_the_clock(case: Case, web: WebServer) -> None:
    later = case.clock() + 60 * MINUTE_SECONDS
    web.answer = lambda request: page(POLICY, more=f"Date: {formatdate(later, usegmt=True)}\r\n")
    mta_sts(case)
    [sighting] = case.sightings.seen
    assert sighting.ahead_seconds > 50 * MINUTE_SECONDS


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ((), Status.OK),
        (('"v=STSv1;"',), Status.FAILED),
        (('"v=STSv1; id=not-so"',), Status.FAILED),
        (('"v=STSv1; id=1"', '"v=STSv1; id=2"'), Status.FAILED),
    ],
)
def test_an_mta_sts_record_has_one_id(nameserver: Nameserver, records: tuple[str, ...], status: Status) -> None:
    if records:
        nameserver.add("_mta-sts.example.test", "TXT", *records)
    assert mta_sts(make_case(Config(), nameserver)).status is status


@pytest.mark.parametrize(
    ("record", "status"),
    [
        ("", Status.OK),
        ("v=TLSRPTv1; rua=mailto:tls@example.test,https://example.test/tls", Status.OK),
        ("v=TLSRPTv1; rua=tls@example.test", Status.FAILED),
        ("v=TLSRPTv1", Status.FAILED),
    ],
)
def test_tls_reports_go_to_mail_or_https(nameserver: Nameserver, record: str, status: Status) -> None:
    if record:
        nameserver.add("_smtp._tls.example.test", "TXT", '"' + record.replace(";", "\\;") + '"')
    assert tls_rpt(make_case(Config(), nameserver)).status is status
