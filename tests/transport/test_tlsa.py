"""DANE on paper (RFC 7672 3): which certificates fit which TLSA records."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.dns.lookup import Tlsa
from mailer.transport.tlsa import DANE_EE, DANE_TA, MAX_RECORDS, fit, presented_chain, read_roots, usable, vouches
from tests.support.certificates import Certificate, issue, make_ca
from tests.support.dane import tlsa_of
from tests.transport.test_peer import serving

HOST, DOMAIN = "mx.a.test", "a.test"
NAMES = (HOST, DOMAIN)
Issue = Callable[..., Certificate]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def good(ca: Certificate) -> Certificate:
    return issue(ca, HOST)


@pytest.fixture(scope="module")
def intermediate(ca: Certificate) -> Certificate:
    """An authority below ``ca``."""
    folder = ca.cert_file.parent / "intermediate"
    folder.mkdir()
    made = Certificate(folder / "ca.pem", folder / "ca.key")
    (folder / "ext").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n")
    commands = (
        f"openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {made.key_file} -subj /CN=below"
        f" -out {folder}/csr && openssl x509 -req -in {folder}/csr -CA {ca.cert_file} -CAkey {ca.key_file} -CAcreateserial"
        f" -days 365 -extfile {folder}/ext -out {made.cert_file}"
    )
    subprocess.run(["sh", "-c", commands], check=True, capture_output=True, timeout=60)
    return made


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.cert_file.read_text())


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
class TestEverySelectorAndMatchingType:
    def test_a_record_names_the_servers_own_certificate(self, good: Certificate, selector: int, matching: int) -> None:
        found = fit([tlsa_of(good, DANE_EE, selector, matching)], [der(good)], NAMES)
        assert (found.is_good, found.usage) == (True, DANE_EE)

    def test_a_record_names_the_authority(self, ca: Certificate, good: Certificate, selector: int, matching: int) -> None:
        found = fit([tlsa_of(ca, DANE_TA, selector, matching)], [der(good), der(ca)], NAMES)
        assert (found.is_good, found.usage) == (True, DANE_TA)

    @pytest.mark.parametrize("usage", [DANE_EE, DANE_TA])
    def test_another_certificate_does_not_fit(
        self, ca: Certificate, good: Certificate, selector: int, matching: int, usage: int
    ) -> None:
        other = issue(ca, "other.a.test")
        assert not fit([tlsa_of(other, usage, selector, matching)], [der(good), der(ca)], NAMES).is_good


@pytest.mark.parametrize("oid", ["2a8648ce3d0201", "2a8648ce3d030107"], ids=["kind of key", "curve"])
@pytest.mark.parametrize("record", ["names the key", "names the authority", "is the authority"])
def test_a_key_of_a_kind_that_nobody_knows_does_not_fit(ca: Certificate, good: Certificate, oid: str, record: str) -> None:
    """The rest of a chain may hold anything: the handshake looks at the first certificate alone."""
    known = bytes.fromhex(oid)
    strange, strange_ca = (der(c).replace(known, known[:-1] + b"\x63") for c in (good, ca))
    assert der(good) != strange
    records = {
        "names the key": [tlsa_of(good, DANE_EE)],
        "names the authority": [tlsa_of(ca, DANE_TA)],
        "is the authority": [Tlsa(DANE_TA, 0, 0, strange_ca)],
    }[record]
    for chain in ([strange, strange_ca], [der(good), strange_ca], [der(good), strange]):
        assert fit(records, chain, NAMES).is_good == (record == "names the key" and chain[0] == der(good))


@pytest.mark.parametrize("strange", ["own", "authority"])
def test_a_certificate_of_a_version_that_is_none_does_not_fit(ca: Certificate, good: Certificate, strange: str) -> None:
    """OpenSSL shakes hands with it. What it was to be checked for must not fail as if the fault were ours."""
    version = bytes.fromhex("a003020102")
    chain = [der(good), der(ca)]
    place = 0 if strange == "own" else 1
    chain[place] = chain[place].replace(version, version[:-1] + b"\x59")
    assert not fit([tlsa_of(ca, DANE_TA)], chain, NAMES).is_good
    assert not fit([Tlsa(DANE_TA, 0, 0, chain[1])], chain, NAMES).is_good
    assert not vouches(read_roots(ca.cert_file.read_bytes()), chain, HOST)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of what is odd about them
@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2000), st.integers(0, 255)), max_size=4))
def test_whatever_a_chain_holds_it_fits_or_does_not(
    ca: Certificate, good: Certificate, changes: list[tuple[int, int, int]]
) -> None:
    chain = [bytearray(der(good)), bytearray(der(ca))]
    for which, at, byte in changes:
        chain[which][at % len(chain[which])] = byte
    shown = [bytes(certificate) for certificate in chain]
    record = Tlsa(DANE_TA, 0, 0, shown[1])
    assert fit([record, Tlsa(DANE_EE, 1, 1, bytes(32))], shown, NAMES).usage in (DANE_EE, DANE_TA)
    assert vouches(read_roots(ca.cert_file.read_bytes()), shown, HOST) in (True, False)


def test_name_dates_and_issuer_do_not_matter_to_dane_ee(ca: Certificate) -> None:
    old = issue(ca, "something.else.test", expired=True)
    assert fit([tlsa_of(old)], [der(old)], NAMES).is_good


@pytest.mark.parametrize("name", [HOST, DOMAIN, "*.a.test"])
def test_dane_ta_takes_a_certificate_for_the_host_or_its_domain(ca: Certificate, name: str) -> None:
    assert fit([tlsa_of(ca, DANE_TA)], [der(issue(ca, name)), der(ca)], NAMES).is_good


def test_dane_ta_refuses_another_name(ca: Certificate) -> None:
    found = fit([tlsa_of(ca, DANE_TA)], [der(issue(ca, "mx.b.test")), der(ca)], NAMES)
    assert not found.is_good
    assert "subjectAltName" in found.why


def test_dane_ta_refuses_an_expired_certificate(ca: Certificate) -> None:
    assert not fit([tlsa_of(ca, DANE_TA)], [der(issue(ca, HOST, expired=True)), der(ca)], NAMES).is_good


def test_dane_ta_refuses_a_certificate_that_the_authority_did_not_sign(tmp_path: Path, ca: Certificate) -> None:
    """The chain shows the authority that the record names, and a certificate of somebody who took its name."""
    forged = issue(make_ca(tmp_path), HOST)
    assert not fit([tlsa_of(ca, DANE_TA)], [der(forged), der(ca)], NAMES).is_good


def test_the_trust_anchor_may_stand_in_the_middle_of_the_chain(intermediate: Certificate, ca: Certificate) -> None:
    server = issue(intermediate, HOST)
    assert fit([tlsa_of(intermediate, DANE_TA)], [der(server), der(intermediate)], NAMES).is_good
    assert fit([tlsa_of(ca, DANE_TA)], [der(server), der(intermediate), der(ca)], NAMES).is_good
    assert not fit([tlsa_of(ca, DANE_TA)], [der(server), der(ca)], NAMES).is_good, "a link is missing"


def test_a_trust_anchor_that_is_whole_in_the_record_need_not_be_shown(ca: Certificate, good: Certificate) -> None:
    assert fit([tlsa_of(ca, DANE_TA, 0, 0)], [der(good)], NAMES).is_good
    assert not fit([tlsa_of(ca, DANE_TA, 0, 1)], [der(good)], NAMES).is_good


def test_a_servers_certificate_is_no_authority(ca: Certificate, good: Certificate) -> None:
    below = issue(good, "mx2.a.test")
    assert not fit([tlsa_of(good, DANE_TA)], [der(below), der(good), der(ca)], ("mx2.a.test",)).is_good


def test_one_record_that_fits_is_enough(ca: Certificate, good: Certificate) -> None:
    records = [tlsa_of(issue(ca, "old.a.test")), tlsa_of(ca, DANE_TA), tlsa_of(good)]
    assert fit(records, [der(good)], NAMES).usage == DANE_EE


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x03\x02\x01\x00"]])
def test_a_chain_that_cannot_be_read_fits_nothing(good: Certificate, chain: list[bytes]) -> None:
    assert not fit([tlsa_of(good)], chain, NAMES).is_good


def test_usable_records_are_of_known_usage_selector_and_length() -> None:
    digest = b"x" * 32
    good = [Tlsa(3, 1, 1, digest), Tlsa(2, 0, 2, digest * 2), Tlsa(3, 0, 0, b"any length")]
    bad = [
        Tlsa(0, 1, 1, digest),  # RFC 7672 3.1.3: PKIX-TA and PKIX-EE are not for SMTP
        Tlsa(1, 1, 1, digest),
        Tlsa(255, 1, 1, digest),
        Tlsa(3, 2, 1, digest),
        Tlsa(3, 1, 3, digest),
        Tlsa(3, 1, 1, digest[1:]),
        Tlsa(3, 1, 2, digest),
        Tlsa(3, 1, 0, b""),
    ]
    assert usable([*bad, *good]) == good


def test_not_more_records_are_looked_at_than_any_honest_host_has() -> None:
    assert len(usable([Tlsa(3, 1, 1, b"x" * 32)] * 10_000)) == MAX_RECORDS


def test_the_chain_that_a_server_sent_is_seen_whole(tmp_path: Path, ca: Certificate, intermediate: Certificate) -> None:
    server = issue(intermediate, HOST)
    bundle = tmp_path / "chain.pem"
    bundle.write_text(server.cert_file.read_text() + intermediate.cert_file.read_text())
    context = serving(Certificate(bundle, server.key_file))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(listener.getsockname()) as plain,
            client.wrap_socket(plain, server_hostname=HOST) as connection,
        ):
            assert presented_chain(connection) == [der(server), der(intermediate)]
        thread.join(20)
