"""Signatures hold with three verifiers that are not ours, over awkward messages, in every form that a message goes out in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mailer.mail.address import Address
from mailer.mail.content import Content, FileContent, MemoryContent
from mailer.mail.envelope import NULL_SENDER, Envelope, Options
from mailer.mail.render import make_render
from mailer.signing.signer import Signers
from tests.signing.corpus import messages
from tests.signing.keyring import Keyring
from tests.signing.verifiers import Passed, dkimpy_passes, opendkim_passes, perl_passes, require
from tests.support.nameserver import Nameserver
from tests.support.relay import Relay
from tests.support.upstream import Behaviour, Upstream

SHOP = Address.parse("shop@other.example")
FORMS: Mapping[str, tuple[frozenset[str], Address | None]] = {
    "8bit": (frozenset({"8BITMIME", "SMTPUTF8"}), None),
    "7bit": (frozenset(), None),
    "8bit-other-from": (frozenset({"8BITMIME"}), SHOP),
    "7bit-other-from": (frozenset(), SHOP),
}
LARGE_BYTES = 256 * 1024


@pytest.fixture(scope="module", autouse=True)
def _verifiers() -> None:
    require()


@pytest.fixture(scope="module", params=FORMS)
def signed(request: pytest.FixtureRequest, keyring: Keyring, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """The corpus as it would go out, a file each."""
    extensions, header_from = FORMS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    signers = Signers(keyring.config)
    paths = []
    for name, data in messages():
        render = make_render(_envelope(data), _content(data, folder / "original"), signers.sign)
        paths.append(_file(folder / f"{name}.eml", b"".join(render(extensions, header_from).chunks())))
    yield paths
    for path in folder.iterdir():
        path.unlink()


def _envelope(data: bytes) -> Envelope:
    is_long = max(map(len, data.split(b"\r\n"))) > 998
    return Envelope("0123456789abcdefg", NULL_SENDER, (), len(data), 0.0, Options(has_long_lines=is_long))


def _content(data: bytes, path: Path) -> Content:
    """As the spool keeps it: in a file when it is large."""
    if len(data) <= LARGE_BYTES:
        return MemoryContent(data)
    path.write_bytes(data)
    return FileContent(path, len(data))


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data if data.endswith(b"\r\n") else data + b"\r\n")  # as SMTP ends it
    return path


def failures(passed: Passed, *expected: str) -> dict[str, set[str]]:
    return {path.name: selectors for path, selectors in passed.items() if selectors != set(expected)}


def expected_of(paths: list[Path]) -> tuple[str, ...]:
    return ("mail", "shop") if "other-from" in str(paths[0]) else ("mail",)


def test_the_corpus_is_large_enough() -> None:
    names = [name for name, _ in messages()]
    assert len(names) == len(set(names)) >= 60


def test_dkimpy_verifies_every_message(signed: list[Path], keyring: Keyring) -> None:
    assert failures(dkimpy_passes(signed, keyring.records), *expected_of(signed)) == {}


def test_perls_mail_dkim_verifies_every_message(signed: list[Path], nameserver: Nameserver) -> None:
    assert failures(perl_passes(signed, nameserver.port), *expected_of(signed)) == {}


def test_opendkim_verifies_every_message_with_both_kinds_of_key(signed: list[Path], keyring: Keyring, tmp_path: Path) -> None:
    assert failures(opendkim_passes(signed, keyring.records, tmp_path), "ed", *expected_of(signed)) == {}


@pytest.mark.parametrize("extensions", [("PIPELINING", "8BITMIME", "SMTPUTF8"), ("PIPELINING",)], ids=["8bit", "7bit"])
def test_what_went_through_the_program_verifies(
    extensions: tuple[str, ...], keyring: Keyring, nameserver: Nameserver, tmp_path: Path
) -> None:
    with Upstream(Behaviour(extensions=extensions)) as upstream:
        count = 0
        with Relay(tmp_path, [upstream], dkim=keyring.settings) as relay, relay.connect() as client:
            for name, data in messages():
                client.ehlo()
                client.mail(f"{name}@example.com")
                client.rcpt("to@example.org")
                code, text = client.data(data)
                assert code == 250, (name, text)
                count += 1
            received = upstream.wait_for(count)
    paths = [_file(tmp_path / f"{message.sender.partition('@')[0]}.eml", message.data) for message in received]
    assert failures(dkimpy_passes(paths, keyring.records), "mail") == {}
    assert failures(perl_passes(paths, nameserver.port), "mail") == {}
    assert failures(opendkim_passes(paths, keyring.records, tmp_path), "mail", "ed") == {}


def test_a_space_before_the_colon_verifies_with_whoever_reads_such_fields(
    keyring: Keyring, nameserver: Nameserver, tmp_path: Path
) -> None:
    """RFC 6376 3.4.2 takes it away; dkimpy reads no message that has one."""
    sign = Signers(keyring.config).sign
    signed = sign(MemoryContent(b"From: ann@example.com\r\nSubject : hello\r\nTo : b@x.test\r\n\r\nbody\r\n"))
    paths = [_file(tmp_path / "space.eml", b"".join(signed.chunks()))]
    assert failures(perl_passes(paths, nameserver.port), "mail") == {}
    assert failures(opendkim_passes(paths, keyring.records, tmp_path), "mail", "ed") == {}


def test_verifiers_see_a_changed_message(keyring: Keyring, nameserver: Nameserver, tmp_path: Path) -> None:
    """What shows that the tests above can fail."""
    sign = Signers(keyring.config).sign
    original = b"".join(sign(MemoryContent(b"From: ann@example.com\r\nTo: b@x.test\r\n\r\nbody\r\n")).chunks())
    second_from = b"From: eve@example.com\r\n" + original
    changed = [original.replace(b"\nbody", b"\nBody"), original.replace(b"b@x.test", b"c@x.test"), second_from]
    paths = [_file(tmp_path / f"{number}.eml", data) for number, data in enumerate(changed)]
    nobody: Passed = {path: set() for path in paths}
    assert dkimpy_passes(paths, keyring.records) == nobody
    assert perl_passes(paths, nameserver.port) == nobody
    assert opendkim_passes(paths, keyring.records, tmp_path) == nobody
