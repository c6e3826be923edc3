"""Which keys sign a message; what happens when they cannot; when keys are read."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailer.config.problems import ConfigError
from mailer.config.schema import DkimConfig
from mailer.mail.content import MAX_HEADER_BYTES, Content, FileContent, MemoryContent
from mailer.signing.keys import RSA, make_key
from mailer.signing.places import write_key_file
from mailer.signing.signature import SigningError
from mailer.signing.signer import Signers, read_ring
from tests.signing.keyring import DOMAIN, OTHER, Keyring
from tests.support.relay import ROOT

BODY = b"\r\nbody\r\n"
ENDLESS = MemoryContent(b"X: y\r\n" * (MAX_HEADER_BYTES // 5))


def selectors(content: bytes | Content, signers: Signers) -> list[str]:
    """The selectors of the signatures that a message gets, in their order."""
    body: Content = MemoryContent(content) if isinstance(content, bytes) else content
    signed = signers.sign(body)
    data = b"".join(signed.chunks())
    assert signed.size == len(data)
    original = b"".join(body.chunks())
    assert data.endswith(original)
    return re.findall(r"[ ;]s=([a-z0-9]+);", data.removesuffix(original).decode())


@pytest.fixture
def signers(keyring: Keyring) -> Signers:
    return Signers(keyring.config)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (b"a@example.com", ["mail", "ed"]),
        (b"a@stranger.test", ["mail", "ed"]),
        (b"a@other.example", ["mail", "ed", "shop"]),
        (b"a@news.other.example", ["mail", "ed", "shop"]),
        (b"a@another.example", ["mail", "ed"]),
        (b"a@stranger.test, b@other.example", ["mail", "ed", "shop"]),
        (b"nobody", ["mail", "ed"]),
    ],
)
def test_one_domain_signs_everything_and_the_others_what_is_from_them(
    signers: Signers, origin: bytes, expected: list[str]
) -> None:
    assert selectors(b"From: " + origin + b"\r\n" + BODY, signers) == expected


def test_without_a_domain_for_everything_only_the_keys_of_from_sign(keyring: Keyring) -> None:
    signers = Signers(replace(keyring.config, domain=""))
    assert selectors(b"From: a@sub.example.com\r\n" + BODY, signers) == ["ed"]
    content = MemoryContent(b"From: a@stranger.test\r\n" + BODY)
    assert signers.sign(content) is content


def test_nothing_is_signed_and_no_key_read_where_it_is_off() -> None:
    signers = Signers(DkimConfig(domain=DOMAIN, private_key_path="/nowhere"))
    content = MemoryContent(b"From: a@example.com\r\n" + BODY)
    assert signers.sign(content) is content


class Counted:
    """Content that knows how much of it was in memory at most, and how often it was read."""

    def __init__(self, pieces: int) -> None:
        self.size = len(b"From: a@example.com\r\n\r\n") + pieces * 65536
        self.times_read = 0
        self._pieces = pieces

    def chunks(self) -> Iterator[bytes]:
        self.times_read += 1
        yield b"From: a@example.com\r\n\r\n"
        for _ in range(self._pieces):
            yield b"x" * 65534 + b"\r\n"


def test_large_content_is_passed_on_in_pieces_and_never_held(signers: Signers) -> None:
    content = Counted(100)
    signed = signers.sign(content)
    before = content.times_read
    pieces = [len(piece) for piece in signed.chunks()]
    assert max(pieces) <= 65536
    assert sum(pieces) == signed.size
    assert (before, content.times_read) == (2, 3), "the header, the body's hash, what goes out"


def test_what_cannot_be_signed_is_kept_unless_it_may_go_unsigned(keyring: Keyring, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SigningError, match=r"cannot be signed with DKIM: the header block is longer .*dkim.onError"):
        Signers(keyring.config).sign(ENDLESS)
    caplog.set_level(logging.WARNING)
    assert Signers(replace(keyring.config, on_error="send")).sign(ENDLESS) is ENDLESS
    assert "dkim.unsigned error='the header block is longer" in caplog.text


def test_content_that_cannot_be_read_is_never_sent_unsigned(keyring: Keyring, tmp_path: Path) -> None:
    gone = FileContent(tmp_path / "gone", 100)
    with pytest.raises(FileNotFoundError):
        Signers(replace(keyring.config, on_error="send")).sign(gone)


def test_every_key_that_is_missing_or_damaged_is_named(keyring: Keyring, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"no key")
    config = keyring.config
    bad = (replace(config.keys[0], private_key_path=str(damaged)), replace(config.keys[1], private_key_path=str(tmp_path / "no")))
    with pytest.raises(ConfigError) as raised:
        read_ring(replace(config, keys=bad))
    first, second = raised.value.problems
    assert first == f"dkim.keys[0]: key {damaged} is not a private key in PEM form"
    assert second.startswith(f"dkim.keys[1]: there is no key {tmp_path / 'no'}: make one with `mailer dkim generate ")
    assert f"--domain {OTHER} --selector shop`" in second


def test_keys_are_read_once_and_anew_when_configured(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "mail.private"
    write_key_file(path, make_key(RSA))
    config = DkimConfig(enabled=True, domain=DOMAIN, private_key_path=str(path))
    signers = Signers(config, clock=lambda: 1_795_000_000.0)
    content = MemoryContent(b"From: a@example.com\r\n" + BODY)
    first = signers.sign(content)
    path.unlink()
    assert signers.sign(content) == first
    with pytest.raises(ConfigError):
        signers.configure(config)
    assert signers.sign(content) == first, "the old key stays"
    write_key_file(path, make_key(RSA))
    signers.configure(config)
    assert signers.sign(content) != first


def test_a_key_that_others_can_read_or_change_and_a_weak_one_are_warnings(tmp_path: Path) -> None:
    path = tmp_path / "mail.private"
    write_key_file(path, make_key(RSA, 1024))
    config = DkimConfig(enabled=True, domain=DOMAIN, private_key_path=str(path))
    (weak,) = read_ring(config).warnings
    assert "1024 bits are weak" in weak
    for mode, warns in ((0o640, False), (0o604, True), (0o620, True), (0o666, True)):
        path.chmod(mode)
        exposed = [text for text in read_ring(config).warnings if "others can read or change" in text]
        assert [f"mode {mode:03o}" in text for text in exposed] == [True] * warns


def test_an_unreadable_key_says_who_may_and_who_we_are(tmp_path: Path) -> None:
    folder = tmp_path / "mail.private"
    folder.mkdir()  # a folder in the key's place cannot be read, even by root
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory \(it belongs to user \d+, this process is user \d+\)"):
        read_ring(DkimConfig(enabled=True, domain=DOMAIN, private_key_path=str(folder)))


def test_without_dkimpy_it_is_said_what_to_install(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dkim", None)
    with pytest.raises(ConfigError, match="dkim: needs the Python package dkimpy"):
        read_ring(keyring.config)


IMPORTED = """
import sys
from mailer import process
from mailer.config.schema import Config
process.is_frozen = lambda: True
process.preload(Config())
{then}
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"dkim", "cryptography"}}))
"""


@pytest.mark.parametrize(
    ("then", "imported"),
    [
        ("", "[]"),
        ("from mailer.signing.signer import Signers; from mailer.config.schema import DkimConfig; Signers(DkimConfig())", "[]"),
        ("from tests.signing.keyring import Keyring; from mailer.signing.signer import Signers; "
         "from pathlib import Path; Signers(Keyring.make(Path(sys.argv[1])).config)", "['cryptography', 'dkim']"),
    ],
    ids=["preload", "off", "on"],
)  # fmt: skip
def test_what_signs_is_imported_before_there_is_mail_and_only_where_it_is_on(then: str, imported: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORTED.format(then=then), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == imported
