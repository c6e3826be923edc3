"""Port 25 and provider logins: against servers on loopback."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from mailer.config.schema import Config, DirectDeliveryConfig, OAuth2Config, ProviderConfig, Secret
from mailer.doctor.case import Target
from mailer.doctor.finding import Status
from mailer.doctor.reach import egress, provider
from tests.doctor.cases import make_case
from tests.support.certificates import issue, make_ca
from tests.support.nameserver import Nameserver
from tests.support.upstream import Behaviour, Login, Upstream

DIRECT = DirectDeliveryConfig(enabled=True, ehlo_domain="mail.example.test")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def target_of(upstream: Upstream) -> Target:
    return Target(upstream.host, upstream.port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_answers_is_ok_and_hears_our_name(upstream: Upstream) -> None:
    found = egress(make_case(Config(direct_delivery=DIRECT), targets=[target_of(upstream)]))
    assert (found.status, "without STARTTLS" in found.text) == (Status.OK, True)
    assert (1, "ehlo mail.example.test") in upstream.commands
    assert upstream.verbs() == ["EHLO", "QUIT"]


def test_a_server_that_refuses_us_is_a_warning_with_its_words(upstream: Upstream) -> None:
    upstream.on("connect", "554 5.7.1 your address\x1b[31m is listed")
    found = egress(make_case(Config(direct_delivery=DIRECT), targets=[target_of(upstream)]))
    assert (found.status, "is listed" in found.text, found.text.isprintable()) == (Status.WARNING, True, True)


def test_a_closed_port_fails() -> None:
    found = egress(make_case(Config(direct_delivery=DIRECT), targets=[Target("127.0.0.1", free_port())]))
    assert (found.status, "outgoing port 25" in found.do) == (Status.FAILED, True)


def test_every_target_that_was_named_must_answer(upstream: Upstream) -> None:
    targets = [target_of(upstream), Target("127.0.0.1", free_port())]
    assert egress(make_case(Config(direct_delivery=DIRECT), targets=targets)).status is Status.FAILED


def test_the_domain_s_own_servers_are_no_test_where_they_are_this_machine() -> None:
    with Nameserver({"example.test": {"MX": "10 mx.example.test"}, "mx.example.test": {"A": "192.0.2.1"}}) as nameserver:
        found = egress(make_case(Config(direct_delivery=DIRECT), nameserver))
    assert (found.status, "--target" in found.text) == (Status.SKIPPED, True)


def test_the_date_in_a_greeting_is_kept_for_the_clock(upstream: Upstream) -> None:
    upstream.on("connect", f"220 mx.test ESMTP; {formatdate(time.time() + 3600)}")
    case = make_case(Config(direct_delivery=DIRECT), targets=[target_of(upstream)])
    egress(case)
    [sighting] = case.sightings.seen
    assert sighting.ahead_seconds > 3000


def login_of(upstream: Upstream, **fields: object) -> ProviderConfig:
    config = ProviderConfig(host="127.0.0.1", port=upstream.port, username="user", password=Secret("hunter2!"))
    return dataclasses.replace(config, **fields)  # type: ignore[arg-type]


@pytest.fixture
def guarded() -> Iterator[Upstream]:
    with Upstream(Behaviour(login=Login("user", "hunter2!"))) as running:
        yield running


def test_a_login_that_is_taken_is_ok(guarded: Upstream) -> None:
    found = provider(make_case(Config()), login_of(guarded))
    assert (found.status, "login accepted" in found.text) == (Status.OK, True)


def test_a_login_that_is_refused_fails_with_advice(guarded: Upstream) -> None:
    found = provider(make_case(Config()), login_of(guarded, password=Secret("wrong")))
    assert (found.status, found.do) == (Status.FAILED, "check username, password and auth")


def test_a_server_that_cannot_be_trusted_fails(tmp_path: Path) -> None:
    ca, other = make_ca(tmp_path / "ca"), make_ca(tmp_path / "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served = issue(ca, "127.0.0.1")
    context.load_cert_chain(served.cert_file, served.key_file)
    with Upstream(Behaviour(tls=context, implicit_tls=True)) as upstream:
        config = ProviderConfig(host="127.0.0.1", port=upstream.port, ssl=True)
        trusting = make_case(Config(), trust_store=lambda: ca.cert_file)
        assert provider(trusting, config).status is Status.OK
        found = provider(make_case(Config(), trust_store=lambda: other.cert_file), config)
    assert (found.status, "certificate" in found.text) == (Status.FAILED, True)


def test_a_refresh_token_is_not_spent(upstream: Upstream) -> None:
    """It may be good for one use, and belongs to the running mailer."""
    with socket.create_server(("127.0.0.1", 0)) as endpoint:
        oauth2 = OAuth2Config(
            token_url=f"http://127.0.0.1:{endpoint.getsockname()[1]}/token", client_id="id", refresh_token=Secret("refresh-token")
        )
        found = provider(make_case(Config()), login_of(upstream, oauth2=oauth2, password=Secret()))
        endpoint.setblocking(False)
        with pytest.raises(BlockingIOError):
            endpoint.accept()
    assert found.status is Status.SKIPPED
    assert "server answers" in found.text
