"""TLS towards recipients' servers: what each policy makes of each server, over a small internet with real certificates."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.config.schema import DomainConfig, TlsReportsConfig
from mailer.dns.lookup import Tlsa
from mailer.events import Hub
from mailer.mail.envelope import Options
from mailer.mail.outcome import Stage, Verdict
from mailer.transport.direct import DirectDelivery, Surroundings
from mailer.transport.tlsrpt import day_of
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.dane import text_of, tlsa_of
from tests.support.internet import Internet
from tests.support.upstream import EXTENSIONS, Behaviour, Disconnect, Upstream
from tests.support.web import WebServer, page
from tests.transport.deliveries import delivery_to
from tests.transport.domains import config_for, send
from tests.transport.test_peer import serving

HOST = "mx1.a.test"
FAULTS = ("unknown authority", "wrong name", "expired")


class Authority:
    """A private authority that the program trusts, and one that it does not."""

    def __init__(self, folder: Path) -> None:
        self.ca = make_ca(folder / "ca")
        self._other = make_ca(folder / "other", "another authority")
        self._made: dict[tuple[str, str], Certificate] = {}

    def certificate(self, fault: str = "", name: str = HOST) -> Certificate:
        key = fault, name
        if key not in self._made:
            authority = self._other if fault == "unknown authority" else self.ca
            shown = "mx.elsewhere.test" if fault == "wrong name" else name
            self._made[key] = issue(authority, shown, expired=fault == "expired")
        return self._made[key]

    def behaviour(self, fault: str = "", name: str = HOST, extensions: tuple[str, ...] = EXTENSIONS) -> Behaviour:
        return Behaviour(tls=serving(self.certificate(fault, name)), extensions=extensions)


class World:
    """An internet whose policies are served by ``web``; ``deliver`` sends a message to b@a.test."""

    def __init__(self, internet: Internet, authority: Authority, web: WebServer, folder: Path) -> None:
        self.internet, self.authority, self.web, self._folder = internet, authority, web, folder
        self.direct: DirectDelivery | None = None

    def start(self, tls: str = "", **settings: object) -> DirectDelivery:
        entry = (DomainConfig(domain="*", tls=tls),) if tls else ()
        config = replace(config_for(self.internet, *entry, **settings), data_dir=self._folder)
        config = replace(config, tls_reports=TlsReportsConfig(enabled=True))
        surroundings = Surroundings(trust_store=lambda: self.authority.ca.cert_file, https_port=self.web.port)
        self.direct = DirectDelivery(config, Hub(), surroundings)
        return self.direct

    def deliver(self, require_tls: bool = False) -> Verdict:
        direct = self.direct or self.start()
        return send(direct, delivery=delivery_to("b@a.test", options=Options(require_tls=require_tls)))[0]

    def counted(self) -> dict[str, tuple[int, list[str]]]:
        """Successes and the kinds of failure of a.test, by kind of policy."""
        assert self.direct is not None
        tally = self.direct.policies.tally
        [day] = {day for day, _ in tally.domains_before(day_of(time.time()) + 1)}
        counts = tally.of(day, "a.test").items()
        return {name.kind: (of.successes, sorted(detail.result.value for detail in of.details)) for name, of in counts}

    def domain(self, *behaviours: Behaviour) -> list[Upstream]:
        """a.test with servers mx1, mx2 … that behave so."""
        made = []
        for number, behaviour in enumerate(behaviours, 1):
            made.append(self.internet.server(f"mx{number}.a.test", behaviour))
            self.internet.dns.add("a.test", "MX", f"{number}0 mx{number}.a.test")
        return made

    def sts(self, mode: str, *mx: str) -> None:
        lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {pattern}" for pattern in mx or ("*.a.test",)), "max_age: 86400"]
        self.web.answer = lambda _request: page("\n".join(lines))
        self.internet.dns.add("_mta-sts.a.test", "TXT", '"v=STSv1; id=1;"')
        self.internet.dns.add("mta-sts.a.test", "A", "127.0.0.1")

    def dane(self, *records: Tlsa, host: str = HOST) -> None:
        pytest.importorskip("cryptography")  # not to be had on every interpreter
        self.internet.dns.vouches = True
        self.internet.dns.add(f"_{self.internet.port}._tcp.{host}", "TLSA", *map(text_of, records))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def policy_host(authority: Authority) -> Iterator[WebServer]:
    with WebServer(lambda _request: page("", "404 Not Found"), serving(authority.certificate(name="mta-sts.a.test"))) as web:
        yield web


@pytest.fixture
def world(authority: Authority, policy_host: WebServer, tmp_path: Path) -> Iterator[World]:
    with Internet() as internet:
        made = World(internet, authority, policy_host, tmp_path)
        yield made
        if made.direct is not None:
            made.direct.close()


def refused_for_tls(verdict: Verdict) -> bool:
    return verdict.stage is Stage.TLS and verdict.reply.is_transient and not verdict.is_delivered


class TestWithoutAPolicy:
    @pytest.mark.parametrize("fault", ["", *FAULTS])
    def test_any_certificate_serves(self, world: World, fault: str) -> None:
        [server] = world.domain(world.authority.behaviour(fault))
        assert world.deliver().is_delivered
        assert server.wait_for(1)[0].tls

    def test_a_server_without_starttls_gets_it_in_clear_text(self, world: World) -> None:
        [server] = world.domain(Behaviour())
        assert world.deliver().is_delivered
        assert server.connections == 1

    @pytest.mark.parametrize(
        "answer", ["454 4.7.0 not now", b"220 go\r\n" + b"\x15\x03\x01\x00\x02\x02\x28" * 20, Disconnect()], ids=str
    )
    def test_where_starttls_fails_clear_text_goes_over_a_new_connection(
        self, world: World, answer: str | bytes | Disconnect
    ) -> None:
        [server] = world.domain(world.authority.behaviour())
        server.on("starttls", answer)
        assert world.deliver().is_delivered
        [message] = server.wait_for(1)
        assert (message.tls, message.connection) == (False, 2)

    @pytest.mark.parametrize("fault", ["", *FAULTS])
    def test_the_log_says_what_tls_there_was_and_whether_the_certificate_would_have_passed(
        self, world: World, fault: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        pytest.importorskip("cryptography")
        world.domain(world.authority.behaviour(fault))
        with caplog.at_level(logging.INFO):
            world.deliver()
        assert f"tls=TLSv1.3/{'unverified' if fault else 'verified'}\n" in caplog.text


class TestWhatTheUserSays:
    @pytest.mark.parametrize("fault", ["", *FAULTS])
    def test_required_takes_any_certificate(self, world: World, fault: str) -> None:
        [server] = world.domain(world.authority.behaviour(fault))
        world.start("required")
        assert world.deliver().is_delivered
        assert server.wait_for(1)[0].tls

    @pytest.mark.parametrize("tls", ["required", "verified"])
    def test_neither_is_ever_answered_with_clear_text(self, world: World, tls: str) -> None:
        plain, failing = world.domain(Behaviour(), world.authority.behaviour(name="mx2.a.test"))
        failing.on("starttls", "454 4.7.0 not now")
        world.start(tls)
        assert refused_for_tls(world.deliver())
        assert "MAIL" not in plain.verbs() + failing.verbs()

    def test_verified_takes_the_hosts_own_certificate_alone(self, world: World) -> None:
        bad, good = world.domain(world.authority.behaviour("wrong name"), world.authority.behaviour(name="mx2.a.test"))
        world.start("verified")
        assert world.deliver().is_delivered
        assert (len(good.wait_for(1)), bad.messages) == (1, [])

    @pytest.mark.parametrize("fault", FAULTS)
    def test_verified_refuses_all_others(self, world: World, fault: str) -> None:
        [server] = world.domain(world.authority.behaviour(fault))
        world.start("verified")
        assert refused_for_tls(world.deliver())
        assert "MAIL" not in server.verbs()

    def test_none_overrides_what_the_domain_asks(self, world: World) -> None:
        [server] = world.domain(world.authority.behaviour())
        world.sts("enforce")
        world.dane(tlsa_of(world.authority.certificate("wrong name")))
        world.start("none")
        assert world.deliver().is_delivered
        assert "STARTTLS" not in server.verbs()

    def test_skipping_verification_takes_any_certificate_but_no_clear_text(self, world: World) -> None:
        plain, server = world.domain(Behaviour(), world.authority.behaviour("wrong name", "mx2.a.test"))
        world.sts("enforce")
        world.dane(tlsa_of(world.authority.certificate()), host="mx2.a.test")
        world.start("verified", insecure_skip_verify=True)
        assert world.deliver().is_delivered
        assert (server.wait_for(1)[0].tls, plain.messages) == (True, [])


class TestMtaSts:
    def test_enforced_a_server_that_fits_gets_mail(self, world: World) -> None:
        [server] = world.domain(world.authority.behaviour())
        world.sts("enforce")
        assert world.deliver().is_delivered
        assert server.wait_for(1)[0].tls

    @pytest.mark.parametrize("fault", [*FAULTS, "no STARTTLS", "STARTTLS fails"])
    def test_enforced_a_server_that_does_not_gets_none(self, world: World, fault: str) -> None:
        [server] = world.domain(Behaviour() if fault == "no STARTTLS" else world.authority.behaviour(fault))
        if fault == "STARTTLS fails":
            server.on("starttls", "454 4.7.0 not now")
        world.sts("enforce")
        verdict = world.deliver()
        assert refused_for_tls(verdict)
        assert "MTA-STS of a.test" in verdict.reply.text
        assert "MAIL" not in server.verbs()

    def test_enforced_a_server_that_the_policy_does_not_name_is_passed_over(self, world: World) -> None:
        stranger, named = world.domain(world.authority.behaviour(), world.authority.behaviour(name="mx2.a.test"))
        world.sts("enforce", "mx2.a.test")
        assert world.deliver().is_delivered
        assert (len(named.wait_for(1)), stranger.connections) == (1, 0)

    @pytest.mark.parametrize("fault", [*FAULTS, "no STARTTLS", "not named"])
    def test_tested_every_server_gets_mail_and_what_would_not_fit_is_counted(self, world: World, fault: str) -> None:
        [server] = world.domain(Behaviour() if fault == "no STARTTLS" else world.authority.behaviour(fault))
        world.sts("testing", "mx9.a.test" if fault == "not named" else HOST)
        assert world.deliver().is_delivered
        assert server.wait_for(1)[0].tls is (fault != "no STARTTLS")
        failures = {
            "unknown authority": "certificate-not-trusted",
            "wrong name": "certificate-host-mismatch",
            "expired": "certificate-expired",
            "no STARTTLS": "starttls-not-supported",
            "not named": "validation-failure",
        }
        assert world.counted()["sts"] == (0, [failures[fault]])

    @pytest.mark.parametrize("fault", FAULTS)
    def test_tested_what_the_user_asks_for_still_holds(self, world: World, fault: str) -> None:
        plain, server = world.domain(Behaviour(), world.authority.behaviour(fault, "mx2.a.test"))
        world.sts("testing")
        world.start("required")
        assert world.deliver().is_delivered
        assert (plain.messages, server.wait_for(1)[0].tls) == ([], True)

    def test_tested_without_a_trust_store_mail_still_goes_over_tls(self, world: World, tmp_path: Path) -> None:
        [server] = world.domain(world.authority.behaviour())
        world.sts("testing")
        assert world.deliver().is_delivered
        gone = Surroundings(trust_store=lambda: tmp_path / "missing.pem", https_port=world.web.port)
        config = replace(config_for(world.internet), data_dir=tmp_path)  # where the policy was kept
        world.direct = DirectDelivery(config, Hub(), gone)
        assert world.deliver().is_delivered
        assert [message.tls for message in server.wait_for(2)] == [True, True]

    def test_a_policy_of_none_asks_nothing(self, world: World) -> None:
        [server] = world.domain(world.authority.behaviour("wrong name"))
        world.sts("none")
        assert world.deliver().is_delivered
        assert server.connections == 1


class TestDane:
    @pytest.mark.parametrize("fault", ["", *FAULTS])
    def test_a_certificate_that_is_named_serves_whoever_signed_it(self, world: World, fault: str) -> None:
        [server] = world.domain(world.authority.behaviour(fault))
        world.dane(tlsa_of(world.authority.certificate(fault)))
        assert world.deliver().is_delivered
        assert server.wait_for(1)[0].tls

    def test_one_that_is_not_named_does_not_though_an_authority_vouches_for_it(self, world: World) -> None:
        [server] = world.domain(world.authority.behaviour())
        world.dane(tlsa_of(world.authority.certificate("wrong name")))
        verdict = world.deliver()
        assert refused_for_tls(verdict)
        assert "DANE of mx1.a.test" in verdict.reply.text
        assert "MAIL" not in server.verbs()

    @pytest.mark.parametrize("fault", ["no STARTTLS", "STARTTLS fails"])
    def test_clear_text_is_never_an_answer(self, world: World, fault: str) -> None:
        [server] = world.domain(Behaviour() if fault == "no STARTTLS" else world.authority.behaviour())
        server.on("starttls", Disconnect())
        world.dane(tlsa_of(world.authority.certificate()))
        assert refused_for_tls(world.deliver())
        assert "MAIL" not in server.verbs()

    def test_what_no_validating_resolver_vouches_for_binds_nobody(self, world: World) -> None:
        [server] = world.domain(world.authority.behaviour())
        world.dane(tlsa_of(world.authority.certificate("wrong name")))
        world.internet.dns.vouches = False
        assert world.deliver().is_delivered
        assert server.wait_for(1)[0].tls

    @pytest.mark.parametrize("trouble", ["SERVFAIL", "REFUSED"])
    def test_a_host_whose_records_cannot_be_had_is_passed_over(self, world: World, trouble: str) -> None:
        pytest.importorskip("cryptography")
        first, second = world.domain(world.authority.behaviour(), world.authority.behaviour(name="mx2.a.test"))
        world.internet.dns.vouches = True
        world.internet.dns.refuse(f"_{world.internet.port}._tcp.{HOST}", trouble)
        assert world.deliver().is_delivered
        assert (first.connections, len(second.wait_for(1))) == (0, 1)
        world.internet.dns.refuse(f"_{world.internet.port}._tcp.mx2.a.test", trouble)
        world.start()
        verdict = world.deliver()
        assert refused_for_tls(verdict)
        assert "TLSA" in verdict.reply.text

    def test_records_of_no_use_ask_for_tls_with_any_certificate(self, world: World) -> None:
        plain, other = world.domain(Behaviour(), world.authority.behaviour("expired", "mx2.a.test"))
        for host in (HOST, "mx2.a.test"):
            world.dane(Tlsa(0, 0, 1, b"x" * 32), host=host)
        assert world.deliver().is_delivered
        assert (plain.messages, other.wait_for(1)[0].tls) == ([], True)

    def test_where_the_host_is_an_alias_the_records_of_the_name_behind_it_come_first(self, world: World) -> None:
        world.internet.dns.add("a.test", "MX", "10 alias.a.test")
        world.internet.dns.add("alias.a.test", "CNAME", "real.b.test")
        server = world.internet.server("real.b.test", world.authority.behaviour(name="real.b.test"))
        world.dane(tlsa_of(world.authority.certificate("expired")), host="alias.a.test")
        world.dane(tlsa_of(world.authority.certificate(name="real.b.test")), host="real.b.test")
        assert world.deliver().is_delivered
        assert server.wait_for(1)[0].tls
        world.internet.dns.remove(f"_{world.internet.port}._tcp.real.b.test")
        world.start()
        verdict = world.deliver()
        assert refused_for_tls(verdict)
        assert "DANE of alias.a.test" in verdict.reply.text

    def test_it_comes_before_mta_sts(self, world: World) -> None:
        """RFC 8461 2: a certificate that DANE names serves though MTA-STS would refuse it; never the other way round."""
        named, signed = world.domain(
            world.authority.behaviour("wrong name"), world.authority.behaviour(name="mx2.a.test")
        )
        world.sts("enforce", "mx2.a.test")
        world.dane(tlsa_of(world.authority.certificate("wrong name")))
        assert world.deliver().is_delivered
        assert len(named.wait_for(1)) == 1
        world.internet.dns.remove(f"_{world.internet.port}._tcp.{HOST}")
        world.dane(tlsa_of(world.authority.certificate("expired")))
        world.dane(tlsa_of(world.authority.certificate("expired")), host="mx2.a.test")
        world.start()
        assert refused_for_tls(world.deliver())
        assert signed.messages == []


class TestWhatIsCounted:
    """RFC 8460 4.3: every session once, under the policy that it was held to."""

    def test_without_a_policy(self, world: World) -> None:
        world.domain(world.authority.behaviour("expired"))
        world.deliver()
        assert world.counted() == {"no-policy-found": (1, [])}

    def test_clear_text(self, world: World) -> None:
        world.domain(Behaviour())
        world.deliver()
        assert world.counted() == {"no-policy-found": (0, ["starttls-not-supported"])}

    def test_an_enforced_policy(self, world: World) -> None:
        world.domain(world.authority.behaviour("wrong name"), world.authority.behaviour(name="mx2.a.test"))
        world.sts("enforce")
        assert world.deliver().is_delivered
        assert world.counted() == {"sts": (1, ["certificate-host-mismatch"])}

    def test_a_policy_that_cannot_be_fetched(self, world: World) -> None:
        world.domain(world.authority.behaviour())
        world.sts("enforce")
        world.web.answer = lambda _request: page("", "404 Not Found")
        assert world.deliver().is_delivered
        assert world.counted() == {"sts": (0, ["sts-policy-fetch-error"]), "no-policy-found": (1, [])}

    def test_dane(self, world: World) -> None:
        world.domain(world.authority.behaviour("expired"), world.authority.behaviour(name="mx2.a.test"))
        record = tlsa_of(world.authority.certificate(name="mx2.a.test"))
        world.dane(record)
        world.dane(record, host="mx2.a.test")
        assert world.deliver().is_delivered
        assert world.counted() == {"tlsa": (1, ["certificate-not-trusted"])}

    def test_records_that_cannot_be_had_and_records_of_no_use(self, world: World) -> None:
        world.domain(world.authority.behaviour(), world.authority.behaviour(name="mx2.a.test"))
        world.dane(Tlsa(0, 0, 1, b"x" * 32), host="mx2.a.test")
        world.internet.dns.refuse(f"_{world.internet.port}._tcp.{HOST}")
        assert world.deliver().is_delivered
        assert world.counted() == {"tlsa": (0, ["dnssec-invalid", "tlsa-invalid"]), "no-policy-found": (1, [])}

    def test_a_report_about_tls_goes_despite_its_failures_and_is_not_counted(self, world: World) -> None:
        """RFC 8460 3: else nobody would hear of a certificate that has expired."""
        [server] = world.domain(world.authority.behaviour("expired"))
        world.sts("enforce")
        world.dane(tlsa_of(world.authority.certificate()))
        delivery = delivery_to("b@a.test", sender="tls-reports@mailer.test", options=Options(is_report=True))
        direct = world.start()
        assert send(direct, delivery=delivery)[0].is_delivered
        assert server.wait_for(1)[0].tls
        assert direct.policies.tally.domains_before(day_of(time.time()) + 1) == []
        assert refused_for_tls(world.deliver()), "and its connection is not kept for others"

    def test_a_report_to_a_sender_is_bound_like_any_mail(self, world: World) -> None:
        world.domain(world.authority.behaviour("expired"))
        world.sts("enforce")
        delivery = delivery_to("b@a.test", sender="", options=Options(is_report=True))
        assert refused_for_tls(send(world.start(), delivery=delivery)[0])


class TestRequireTls:
    """RFC 8689: from the first server that is verified and offers it."""

    def test_it_is_passed_on(self, world: World) -> None:
        _, good = world.domain(
            world.authority.behaviour("wrong name", extensions=(*EXTENSIONS, "REQUIRETLS")),
            world.authority.behaviour(name="mx2.a.test", extensions=(*EXTENSIONS, "REQUIRETLS")),
        )
        world.internet.dns.vouches = True
        assert world.deliver(require_tls=True).is_delivered
        assert "REQUIRETLS" in good.wait_for(1)[0].parameters

    def test_dane_is_as_good_as_an_authority(self, world: World) -> None:
        [server] = world.domain(world.authority.behaviour("unknown authority", extensions=(*EXTENSIONS, "REQUIRETLS")))
        world.dane(tlsa_of(world.authority.certificate("unknown authority")))
        assert world.deliver(require_tls=True).is_delivered
        assert len(server.wait_for(1)) == 1

    def test_a_server_without_it_is_passed_over_and_where_all_are_it_comes_back(self, world: World) -> None:
        first, second = world.domain(world.authority.behaviour(), world.authority.behaviour(name="mx2.a.test"))
        world.internet.dns.vouches = True
        verdict = world.deliver(require_tls=True)
        assert (verdict.reply.code, verdict.reply.enhanced) == (550, "5.7.30")
        assert (first.connections, second.connections) == (1, 1)
        assert "MAIL" not in first.verbs() + second.verbs()

    def test_servers_that_nobody_vouches_for_are_not_even_asked(self, world: World) -> None:
        """RFC 8689 8.2: whoever forges the MX records has a good certificate for a server of his own."""
        [server] = world.domain(world.authority.behaviour(extensions=(*EXTENSIONS, "REQUIRETLS")))
        verdict = world.deliver(require_tls=True)
        assert (verdict.stage, verdict.reply.code, verdict.reply.enhanced) == (Stage.MAIL, 550, "5.7.30")
        assert server.connections == 0
        assert world.deliver().is_delivered  # it says nothing of the domain

    @pytest.mark.parametrize("mode", ["enforce", "testing"])
    def test_mta_sts_vouches_for_the_servers_that_it_names(self, world: World, mode: str) -> None:
        offering = (*EXTENSIONS, "REQUIRETLS")
        other, named = world.domain(
            world.authority.behaviour(extensions=offering), world.authority.behaviour(name="mx2.a.test", extensions=offering)
        )
        world.sts(mode, "mx2.a.test")
        assert world.deliver(require_tls=True).is_delivered
        assert (other.connections, len(named.wait_for(1))) == (0, 1)

    def test_while_a_policy_cannot_be_fetched_it_waits(self, world: World) -> None:
        [server] = world.domain(world.authority.behaviour(extensions=(*EXTENSIONS, "REQUIRETLS")))
        world.sts("enforce")
        world.web.answer = lambda _request: page("", "503 Service Unavailable")
        assert refused_for_tls(world.deliver(require_tls=True))
        assert server.connections == 0


@pytest.mark.parametrize("renewed", [False, True], ids=["before", "after a reload"])
def test_a_trust_store_that_is_replaced_counts_after_a_reload(world: World, tmp_path: Path, renewed: bool) -> None:
    """Whoever renews the certificates of a private authority reloads, and need not start again."""
    store = tmp_path / "store.pem"
    store.write_text(make_ca(tmp_path / "unrelated").cert_file.read_text())
    world.domain(world.authority.behaviour())
    world.sts("enforce")
    direct = world.start()
    surroundings = Surroundings(trust_store=lambda: store, https_port=world.web.port)
    config = replace(config_for(world.internet, DomainConfig(domain="*", tls="verified")), data_dir=tmp_path)
    direct = world.direct = DirectDelivery(config, Hub(), surroundings)
    assert not world.deliver().is_delivered
    if renewed:
        store.write_text(world.authority.ca.cert_file.read_text())
        direct.configure(config)
    assert world.deliver().is_delivered is renewed


def test_a_context_without_policy_needs_no_trust_store(world: World, tmp_path: Path) -> None:
    [server] = world.domain(world.authority.behaviour())
    surroundings = Surroundings(trust_store=lambda: tmp_path / "missing.pem", https_port=world.web.port)
    world.direct = DirectDelivery(replace(config_for(world.internet), data_dir=tmp_path), Hub(), surroundings)
    assert world.deliver().is_delivered
    assert server.wait_for(1)[0].tls


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_below_1_2_is_no_tls(world: World) -> None:
    """RFC 8996: a server that has nothing better gets mail in clear text, where no policy forbids it."""
    context = serving(world.authority.certificate())
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    [server] = world.domain(Behaviour(tls=context))
    assert world.deliver().is_delivered
    assert not server.wait_for(1)[0].tls
