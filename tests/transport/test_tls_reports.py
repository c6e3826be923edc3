"""Reports about TLS (RFC 8460): what is counted, how it is told, and to whom. No test waits for a day to be over."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.config.schema import Config, DirectDeliveryConfig, TlsReportsConfig
from mailer.dns.lookup import Dns
from mailer.mail.address import Address
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.mail.outcome import MailerError
from mailer.transport.https import Https
from mailer.transport.tls_reporter import (
    LATEST_SECONDS,
    LOOK_SECONDS,
    MAX_ADDRESSES,
    RETRY_SECONDS,
    TlsReporter,
    Wanted,
    wanted_by,
)
from mailer.transport.tlsrpt import (
    DAY_SECONDS,
    MAX_DETAILS,
    MAX_DOMAINS,
    MAX_POLICIES,
    MAX_REASON_CHARS,
    Detail,
    PolicyName,
    Result,
    Tally,
    day_of,
)
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.nameserver import Nameserver
from tests.support.web import WebServer, page
from tests.transport.deliveries import Clock
from tests.transport.test_peer import serving

STS = PolicyName("a.test", "sts", ("version: STSv1", "mode: enforce"), ("*.a.test",))
FAILURE = Detail(Result.EXPIRED, "mx1.a.test", "192.0.2.1", "198.51.100.1", "certificate has expired")
NOON = 20_000 * DAY_SECONDS + DAY_SECONDS / 2


def counting(path: Path, clock: Clock) -> Tally:
    tally = Tally(path, clock)
    tally.is_counting = True
    tally.load()
    return tally


class TestCounting:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock(NOON)

    @pytest.fixture
    def tally(self, tmp_path: Path, clock: Clock) -> Tally:
        return counting(tmp_path / "spool" / "tlsrpt.json", clock)

    def test_successes_and_failures_are_counted_by_policy(self, tally: Tally) -> None:
        tally.success(STS)
        tally.failure(STS, FAILURE)
        tally.failure(STS, FAILURE)
        tally.success(PolicyName("a.test"))
        counted = tally.of(20_000, "a.test")
        assert (counted[STS].successes, counted[STS].failures, counted[STS].details) == (1, 2, {FAILURE: 2})
        assert counted[PolicyName("a.test")].successes == 1

    def test_nothing_is_counted_while_reports_are_off(self, tally: Tally) -> None:
        tally.is_counting = False
        tally.success(STS)
        tally.failure(STS, FAILURE)
        assert tally.of(20_000, "a.test") == {}

    def test_counts_survive_a_restart(self, tally: Tally, tmp_path: Path, clock: Clock) -> None:
        tally.success(STS)
        tally.failure(STS, FAILURE)
        tally.save()
        again = counting(tmp_path / "spool" / "tlsrpt.json", clock)
        assert again.of(20_000, "a.test") == tally.of(20_000, "a.test")

    @pytest.mark.parametrize("content", [b"", b"{}", b"[[1]]", b"[" * 50_000, b"\xff", b'[[1, ["a", "b", 3, 4], 1, 1, [["x"]]]]'])
    def test_a_file_that_cannot_be_read_begins_anew(self, tmp_path: Path, clock: Clock, content: bytes) -> None:
        path = tmp_path / "tlsrpt.json"
        path.write_bytes(content)
        tally = counting(path, clock)
        tally.success(STS)
        tally.save()
        assert counting(path, clock).of(20_000, "a.test")[STS].successes == 1

    def test_a_file_that_cannot_be_written_leaves_the_counts_in_memory(self, tmp_path: Path, clock: Clock) -> None:
        (tmp_path / "file").write_text("")
        tally = counting(tmp_path / "file" / "tlsrpt.json", clock)
        tally.success(STS)
        tally.save()
        assert tally.of(20_000, "a.test")[STS].successes == 1

    def test_what_strangers_make_us_count_is_bounded(self, tally: Tally) -> None:
        for number in range(MAX_DETAILS + 10):
            tally.failure(STS, FAILURE._replace(host=f"mx{number}.a.test", reason="x" * 10_000))
        for number in range(MAX_POLICIES + 10):
            tally.success(STS._replace(lines=(str(number),)))
        for number in range(MAX_DOMAINS + 10):
            tally.success(PolicyName(f"{number}.test"))
        counted = tally.of(20_000, "a.test")
        assert counted[STS].failures == MAX_DETAILS + 10
        assert len(counted[STS].details) == MAX_DETAILS
        assert all(len(detail.reason) == MAX_REASON_CHARS for detail in counted[STS].details)
        assert len(counted) == MAX_POLICIES
        assert len(tally.domains_before(20_001)) == MAX_DOMAINS

    def test_only_days_that_are_over_are_to_be_told_and_old_ones_are_forgotten(self, tally: Tally, clock: Clock) -> None:
        tally.success(STS)
        assert tally.domains_before(20_000) == []
        assert tally.domains_before(20_001) == [(20_000, "a.test")]
        clock.now += 5 * DAY_SECONDS
        assert tally.domains_before(day_of(clock.now)) == []

    def test_threads_count_together(self, tally: Tally) -> None:
        def count() -> None:
            for _ in range(500):
                tally.success(STS)
                tally.failure(STS, FAILURE)
                tally.save()

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = tally.of(20_000, "a.test")[STS]
        assert (counts.successes, counts.failures, counts.details) == (2000, 2000, {FAILURE: 2000})


@pytest.mark.parametrize(
    ("record", "mail", "web"),
    [
        ("v=TLSRPTv1; rua=mailto:tls@a.test", ["tls@a.test"], []),
        ("v=TLSRPTv1;rua=https://a.test/in?x=1", [], [("a.test", "/in?x=1")]),
        ("v=TLSRPTv1; rua=mailto:tls@a.test, https://a.test ,mailto:b%2Bc@a.test!10m", ["tls@a.test"], [("a.test", "/")]),
        ("v=TLSRPTv1; rua=MAILTO:tls%2Bx@a.test?subject=x", ["tls+x@a.test"], []),
        ("v=TLSRPTv1; rua=http://a.test/,ftp://a.test/,https://u:p@a.test/,https://a.test:99999/,https:///x", [], []),
        ("v=TLSRPTv1; rua=https://a.test:8443/", [], []),
        ("v=TLSRPTv1; rua=mailto:not an address,mailto:,mailto:a%0d%0aBcc: x@a.test", [], []),
        ("v=TLSRPTv1; rua=https://a.test/in HTTP/1.1\r\nX: y", [], []),
        ("v=TLSRPTv1", [], []),
        ("v=TLSRPTv2; rua=mailto:tls@a.test", [], []),
    ],
)
def test_a_record_says_where_reports_are_wanted(record: str, mail: list[str], web: list[tuple[str, str]]) -> None:
    wanted = wanted_by([record])
    assert [str(address) for address in wanted.mail] == mail
    assert list(wanted.web) == web


def test_two_records_are_none() -> None:
    assert wanted_by(["v=TLSRPTv1; rua=mailto:a@a.test", "v=TLSRPTv1; rua=mailto:b@a.test"]) == Wanted()


def test_no_record_has_us_send_to_many() -> None:
    by_mail = "".join(f"rua=mailto:a{number}@a.test;" for number in range(200))
    by_web = "".join(f"rua=https://a{number}.test/;" for number in range(200))
    assert len(wanted_by([f"v=TLSRPTv1; {by_mail}"]).mail) == MAX_ADDRESSES
    assert len(wanted_by([f"v=TLSRPTv1; {by_web}"]).web) == MAX_ADDRESSES


@given(st.text(max_size=200))
def test_any_record_leads_to_addresses_and_paths_that_can_be_written(text: str) -> None:
    wanted = wanted_by([f"v=TLSRPTv1; rua={text}", "v=spf1 -all"])
    assert all(str(address).isprintable() for address in wanted.mail)
    assert all(path.isascii() and path.isprintable() and " " not in path for _, path in wanted.web)


class World:
    """A reporter over a nameserver and a web server; ``mail`` is what it gave to the spool."""

    def __init__(self, nameserver: Nameserver, web: WebServer, ca: Certificate, folder: Path) -> None:
        self.nameserver, self.web, self.clock = nameserver, web, Clock(NOON)
        self.mail: list[tuple[Envelope, Content]] = []
        self.tally = counting(folder / "tlsrpt.json", self.clock)
        self.dns = Dns([nameserver.address], 2.0)
        https = Https(lambda _host: ["127.0.0.1"], lambda: ca.cert_file, web.port)
        self.reporter = TlsReporter(self.tally, self.dns.txt, https, random.Random(1))
        self.reporter.submit = self._submit
        self.config = Config(
            hostname="out.mailer.test",
            direct_delivery=DirectDeliveryConfig(enabled=True, allow_private=True),
            tls_reports=TlsReportsConfig(enabled=True),
        )
        self.reporter.configure(self.config)

    def _submit(self, envelope: Envelope, content: Content) -> None:
        self.mail.append((envelope, content))

    def want(self, *uris: str) -> None:
        self.nameserver.remove("_smtp._tls.a.test")
        if uris:
            self.nameserver.add("_smtp._tls.a.test", "TXT", f'"v=TLSRPTv1; rua={",".join(uris)}"')
        self.dns.forget()

    def day_is_over(self) -> float:
        self.clock.now = 20_001 * DAY_SECONDS + LATEST_SECONDS + 1
        return self.step()

    def step(self) -> float:
        return self.reporter.step(self.clock.now)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(ca: Certificate, tmp_path: Path) -> Iterator[World]:
    with Nameserver({"a.test": {"A": "127.0.0.1"}}) as nameserver:
        certificate = serving(issue(ca, "reports.a.test"))
        with WebServer(lambda _request: page("", "201 Created"), certificate) as web:
            made = World(nameserver, web, ca, tmp_path)
            made.tally.success(STS)
            made.tally.failure(STS, FAILURE)
            made.tally.success(PolicyName("b.test"))
            yield made


def parsed(content: Content) -> EmailMessage:
    message = email.message_from_bytes(b"".join(content.chunks()), policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    return message


def unpacked(data: bytes) -> Any:
    return json.loads(gzip.decompress(data))


def all_steps(world: World) -> None:
    while world.step() < LOOK_SECONDS:
        pass


def test_a_report_by_mail_is_what_the_rfc_says(world: World) -> None:
    world.want("mailto:tls@a.test")
    world.day_is_over()
    all_steps(world)
    [(envelope, content)] = world.mail
    assert str(envelope.sender) == "tls-reports@out.mailer.test"
    assert [str(r.address) for r in envelope.recipients] == ["tls@a.test"]
    assert envelope.options.is_report
    assert envelope.size == content.size
    message = parsed(content)
    assert message.defects == []
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    assert (message["TLS-Report-Domain"], message["TLS-Report-Submitter"]) == ("a.test", "out.mailer.test")
    assert message["Subject"].startswith("Report Domain: a.test Submitter: out.mailer.test Report-ID: <")
    words, attached = message.iter_parts()
    assert words.get_content_type() == "text/plain"
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    start = 20_000 * DAY_SECONDS
    name = attached.get_filename() or ""
    assert name.startswith(f"out.mailer.test!a.test!{start}!{start + DAY_SECONDS - 1}!")
    assert name.endswith(".json.gz")
    report = unpacked(attached.get_content())
    assert report["report-id"] in message["Subject"]
    assert report == {
        "organization-name": "out.mailer.test",
        "date-range": {"start-datetime": "2024-10-04T00:00:00Z", "end-datetime": "2024-10-04T23:59:59Z"},
        "contact-info": "tls-reports@out.mailer.test",
        "report-id": report["report-id"],
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: enforce"],
                    "policy-domain": "a.test",
                    "mx-host": ["*.a.test"],
                },
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 1},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "198.51.100.1",
                        "receiving-mx-hostname": "mx1.a.test",
                        "receiving-ip": "192.0.2.1",
                        "failed-session-count": 1,
                        "failure-reason-code": "certificate has expired",
                    }
                ],
            }
        ],
    }


def test_a_report_is_handed_in_over_https(world: World) -> None:
    world.want("https://reports.a.test/tls")
    world.day_is_over()
    all_steps(world)
    [request] = world.web.requests
    assert (request.method, request.host, request.path) == ("POST", "reports.a.test", "/tls")
    assert "Content-Type: application/tlsrpt+gzip" in request.head
    assert unpacked(request.body)["policies"][0]["policy"]["policy-domain"] == "a.test"
    assert world.mail == []


def test_nothing_is_told_before_the_day_is_over_nor_twice(world: World) -> None:
    world.want("mailto:tls@a.test")
    assert world.step() == LOOK_SECONDS
    assert world.mail == []
    world.day_is_over()
    all_steps(world)
    all_steps(world)
    assert len(world.mail) == 1


def test_a_domain_that_asks_for_nothing_hears_nothing(world: World) -> None:
    world.day_is_over()
    all_steps(world)
    assert (world.mail, world.web.requests) == ([], [])
    assert world.tally.domains_before(20_001) == []


def test_nobody_hears_anything_unless_reports_are_enabled(world: World) -> None:
    world.want("mailto:tls@a.test")
    world.reporter.configure(replace(world.config, tls_reports=TlsReportsConfig()))
    world.day_is_over()
    assert world.mail == []
    assert world.nameserver.count("_smtp._tls.a.test") == 0


@pytest.mark.parametrize("fault", ["web server says no", "web server is somebody else", "spool is full", "DNS in trouble"])
def test_a_report_that_cannot_be_handed_in_is_tried_again_each_hour(
    world: World, fault: str, ca: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_envelope: Envelope, _content: Content) -> None:
        raise MailerError("no space")

    if fault == "web server says no":
        world.want("https://reports.a.test/tls")
        world.web.answer = lambda _request: page("", "500 Internal Server Error")
    elif fault == "web server is somebody else":
        world.want("https://www.a.test/tls")
    elif fault == "spool is full":
        world.want("mailto:tls@a.test")
        monkeypatch.setattr(world.reporter, "submit", full)
    else:
        world.nameserver.refuse("_smtp._tls.a.test")
    world.day_is_over()
    all_steps(world)
    assert world.tally.domains_before(20_001) == [(20_000, "a.test")]
    world.want("mailto:tls@a.test")
    world.nameserver.heal("_smtp._tls.a.test")
    monkeypatch.undo()
    assert world.step() == LOOK_SECONDS
    assert world.mail == []
    world.clock.now += RETRY_SECONDS + 1
    all_steps(world)
    assert len(world.mail) == 1


def test_sender_and_contact_are_the_users_to_choose(world: World) -> None:
    reports = TlsReportsConfig(enabled=True, sender="noreply@mailer.test", contact="postmaster@mailer.test")
    world.reporter.configure(replace(world.config, tls_reports=reports))
    world.want("mailto:tls@a.test", "mailto:more@a.test")
    world.day_is_over()
    all_steps(world)
    [(envelope, content)] = world.mail
    assert envelope.sender == Address.parse("noreply@mailer.test")
    assert parsed(content)["To"] == "tls@a.test, more@a.test"
    [_, attached] = parsed(content).iter_parts()
    assert unpacked(attached.get_content())["contact-info"] == "postmaster@mailer.test"
