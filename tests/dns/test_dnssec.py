"""What a real validating resolver vouches for, and what it refuses: signed zones behind unbound."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mailer.dns.lookup import Dns, Status, Tlsa
from tests.support.nameserver import Nameserver
from tests.support.unbound import Unbound, sign

DIGEST = "ab" * 32


@pytest.fixture(scope="module")
def resolved() -> Iterator[Dns]:
    """``secure.test`` and ``bogus.test`` are signed and trusted, and of the latter a record was changed since."""
    secure = sign(
        "secure.test",
        {
            "secure.test": {"MX": "10 mx.secure.test."},
            "mx.secure.test": {"A": "127.0.0.1"},
            "_25._tcp.mx.secure.test": {"TLSA": f"3 1 1 {DIGEST}"},
            "out.secure.test": {"CNAME": "mx.insecure.test."},
        },
    )
    bogus = sign("bogus.test", {"bogus.test": {"MX": "10 mx.bogus.test."}})
    with Nameserver({"insecure.test": {"MX": "10 mx.insecure.test"}, "mx.insecure.test": {"A": "127.0.0.2"}}) as nameserver:
        nameserver.load(secure.zone)
        nameserver.load(bogus.zone)
        nameserver.remove("bogus.test", "MX")
        nameserver.add("bogus.test", "MX", "10 mx.elsewhere.test")
        with Unbound(nameserver, [secure, bogus]) as resolver:
            yield Dns([resolver.address], timeout_seconds=20.0)


def test_what_a_signed_zone_says_is_authentic(resolved: Dns) -> None:
    said = resolved.mx("secure.test")
    assert (said.records, said.is_authentic) == (((10, "mx.secure.test"),), True)
    assert resolved.addresses("mx.secure.test", socket.AF_INET).is_authentic
    assert resolved.tlsa("_25._tcp.mx.secure.test").records == (Tlsa(3, 1, 1, bytes.fromhex(DIGEST)),)


def test_that_there_is_nothing_is_authentic_too(resolved: Dns) -> None:
    no_data = resolved.addresses("mx.secure.test", socket.AF_INET6)
    assert (no_data.status, no_data.is_authentic) == (Status.NO_DATA, True)
    no_name = resolved.tlsa("_25._tcp.other.secure.test")
    assert (no_name.status, no_name.is_authentic) == (Status.NO_SUCH_NAME, True)


def test_what_an_unsigned_zone_says_is_not(resolved: Dns) -> None:
    said = resolved.mx("insecure.test")
    assert (said.status, said.is_authentic) == (Status.FOUND, False)
    assert not resolved.tlsa("_25._tcp.mx.insecure.test").is_authentic


def test_an_alias_is_no_more_authentic_than_where_it_leads(resolved: Dns) -> None:
    said = resolved.addresses("out.secure.test", socket.AF_INET)
    assert (said.records, said.is_authentic, said.name) == (("127.0.0.2",), False, "mx.insecure.test")


def test_an_answer_whose_signature_does_not_fit_is_a_failure_that_says_so(resolved: Dns) -> None:
    said = resolved.mx("bogus.test")
    assert (said.status, said.records, said.is_authentic) == (Status.FAILED, (), False)
    assert "SERVFAIL" in said.why
    assert "DNSSEC Bogus" in said.why
