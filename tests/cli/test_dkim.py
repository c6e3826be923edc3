"""``mailer dkim``: the commands as an operator uses them, with a nameserver on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailer.cli import main
from tests.signing.conftest import in_strings
from tests.support.nameserver import Nameserver
from tests.support.relay import ROOT, WAIT_SECONDS

pytest.importorskip("cryptography", reason="no wheels for free-threaded 3.13")
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

NAME = "mail._domainkey.example.com"
VALUE = re.compile(r"^Value: (.*)$", re.MULTILINE)


class Site:
    """A folder with a configuration, a nameserver that it asks, and the commands."""

    def __init__(self, folder: Path, nameserver: Nameserver, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.nameserver = nameserver
        self.keys = folder / "keys" / "example.com"
        self.config = folder / "config.json"
        self._capsys = capsys
        self.configure(domain="example.com")

    def configure(self, **dkim: Any) -> None:
        dns = {"nameservers": [self.nameserver.address], "timeout": 2}
        settings = {"dataDir": str(self.folder), "dns": dns, "dkim": {"enabled": True, **dkim}}
        self.config.write_text(json.dumps(settings | {"security": {"requireAuth": False}}))

    def dkim(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = main(["-config", str(self.config), "dkim", *words])
        return code, *self._capsys.readouterr()

    def check(self) -> tuple[int, str]:
        code = main(["-config", str(self.config), "check"])
        return code, self._capsys.readouterr().err

    def generate(self, *words: str) -> str:
        """The record of a new key."""
        code, out, err = self.dkim("generate", "--domain", "example.com", *words)
        assert (code, err) == (0, "")
        return found(VALUE, out)

    def publish(self, record: str, name: str = NAME) -> None:
        self.nameserver.remove(name)
        self.nameserver.add(name, "TXT", in_strings(record))


def found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    assert match is not None, text
    return match[1]


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    with Nameserver({"example.com": {"A": "192.0.2.1"}}) as nameserver:
        yield Site(tmp_path, nameserver, capsys)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# generate


def test_a_new_key_is_rsa_of_2048_bits_for_the_owner_alone(site: Site) -> None:
    record = site.generate()
    path = site.keys / "mail.private"
    assert (mode(path), mode(path.parent), mode(path.parent.parent)) == (0o600, 0o700, 0o700)
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 2048
    assert record.startswith("v=DKIM1; k=rsa; p=MII")
    assert [file.name for file in site.keys.iterdir()] == ["mail.private"]


def test_an_ed25519_key_and_other_sizes_and_selectors(site: Site) -> None:
    assert len(site.generate("--selector", "ED", "--ed25519")) == len("v=DKIM1; k=ed25519; p=") + 44  # RFC 8463: 32 bytes
    assert isinstance(load_pem_private_key((site.keys / "ed.private").read_bytes(), None), ed25519.Ed25519PrivateKey)
    site.generate("--selector", "big", "--bits", "3072")
    key = load_pem_private_key((site.keys / "big.private").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072


def test_the_zone_file_form_is_strings_of_255_bytes_that_join_to_the_value(site: Site) -> None:
    _, out, _ = site.dkim("generate", "--domain", "Example.COM.")
    zone = out[out.index(f"{NAME}. IN TXT (") :].partition(")")[0]
    strings = re.findall(r'"([^"]*)"', zone)
    assert [len(string) for string in strings] == [255, len("".join(strings)) - 255]
    assert "".join(strings) == found(VALUE, out)


def test_a_key_is_never_overwritten(site: Site) -> None:
    site.generate()
    before = (site.keys / "mail.private").read_bytes()
    code, out, err = site.dkim("generate", "--domain", "example.com", "--ed25519")
    assert (code, out) == (os.EX_CANTCREAT, "")
    assert "never overwritten" in err
    assert (site.keys / "mail.private").read_bytes() == before


def test_a_key_goes_where_the_configuration_will_look_for_it(site: Site) -> None:
    site.configure(domain="example.com", privateKeyPath="own/place.pem")
    site.generate()
    assert mode(site.folder / "own" / "place.pem") == 0o600
    assert site.check()[0] == 0


def test_a_key_can_be_made_before_there_is_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dkim", "generate", "--domain", "example.com"]) == 0
    assert (tmp_path / "keys/example.com/mail.private").exists()
    assert '"dkim": { "enabled": true, "domain": "example.com", "selector": "mail" }' in capsys.readouterr().out


def test_the_command_that_the_missing_key_names_makes_it(site: Site) -> None:
    code, err = site.check()
    assert code == 78
    site.dkim(*found(re.compile(r"`mailer dkim ([^`]*)`"), err).split())
    assert site.check()[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_made_by_root_belongs_to_the_service(site: Site) -> None:
    os.chown(site.folder, 4242, 4243)
    site.generate()
    for path in (site.keys.parent, site.keys, site.keys / "mail.private"):
        assert (path.stat().st_uid, path.stat().st_gid) == (4242, 4243)


@pytest.mark.parametrize(
    "words",
    [(), ("generate",), ("generate", "--domain", "a b"), ("generate", "--domain", "a.test", "--selector", "../x"), ("nothing",)],
)
def test_words_that_mean_nothing_end_with_64(site: Site, words: tuple[str, ...]) -> None:
    try:
        code, *_ = site.dkim(*words)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == os.EX_USAGE
    assert not site.keys.parent.exists()


# check


def test_a_published_key_is_in_order(site: Site) -> None:
    site.publish(site.generate())
    code, out, _ = site.dkim("check")
    assert code == 0
    assert out.startswith(f"ok       {NAME}: ")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda record: record.replace("MII", "MIJ"), "another key"),
        (lambda record: record.partition("p=")[0] + "p=", "revoked"),
        (lambda record: record.replace("k=rsa", "k=ed25519"), "kind"),
        (lambda record: record.replace("v=DKIM1", "v=DKIM2"), "v='DKIM2'"),
        (lambda record: record + "; h=sha1", "sha256"),
        (lambda record: record + "; s=tlsrpt", "email"),
        (lambda record: "v=spf1 -all", "no DKIM record"),
    ],
)
def test_a_published_record_that_does_not_serve_says_why(site: Site, change: Any, why: str) -> None:
    site.publish(change(site.generate()))
    code, out, _ = site.dkim("check")
    assert code == os.EX_UNAVAILABLE
    assert why in out.splitlines()[0]
    assert f"{NAME}. IN TXT" in out, "what to publish"


@pytest.mark.parametrize("field", ["v=\x1b[2J", "k=\x1b[2J"])
def test_what_dns_says_is_nothing_that_a_terminal_obeys(site: Site, field: str) -> None:
    site.generate()
    site.publish(f"p=MII; {field}")
    assert "\x1b" not in site.dkim("check")[1]


@pytest.mark.parametrize(
    "change", [lambda r: r.replace("; ", ";"), lambda r: f"{r};", lambda r: r.replace("v=DKIM1; k=rsa; ", "")]
)
def test_a_record_in_other_words_is_in_order_too(site: Site, change: Any) -> None:
    site.publish(change(site.generate()))
    assert site.dkim("check")[0] == 0


def test_a_test_flag_is_a_warning(site: Site) -> None:
    site.publish(site.generate() + "; t=y:s")
    code, out, _ = site.dkim("check")
    assert code == 0
    assert out.startswith("warning  ")


def test_nothing_published_two_records_and_no_answer(site: Site) -> None:
    record = site.generate()
    assert site.dkim("check")[0] == os.EX_UNAVAILABLE
    site.nameserver.add(NAME, "TXT", in_strings(record), in_strings(record.replace("MII", "MIJ")))
    code, out, _ = site.dkim("check")
    assert code == os.EX_UNAVAILABLE
    assert "2 DKIM records" in out
    site.nameserver.refuse(NAME)
    code, out, _ = site.dkim("check")
    assert code == os.EX_TEMPFAIL
    assert out.startswith("unknown ")


def test_every_configured_key_is_checked_and_the_worst_counts(site: Site) -> None:
    site.configure(domain="example.com", keys=[{"domain": "example.com", "selector": "ed"}, {"domain": "other.example"}])
    site.publish(site.generate())
    site.generate("--selector", "ed", "--ed25519")
    code, out, _ = site.dkim("check")
    assert code == 78
    assert [line.split()[:2] for line in out.splitlines() if re.match("ok|failed", line)] == [
        ["ok", f"{NAME}:"],
        ["failed", "ed._domainkey.example.com:"],
        ["failed", "mail._domainkey.other.example:"],
    ]
    assert site.dkim("check", "--domain", "other.example")[0] == 78
    code, _, err = site.dkim("check", "--domain", "nobody.example")
    assert code == 78
    assert "no key of nobody.example is configured" in err


# rotate


class Rotation:
    """A rotation in a process of its own, as an operator's, that can be interrupted."""

    def __init__(self, site: Site) -> None:
        command = [sys.executable, "-u", str(ROOT / "mailer.py"), "-config", str(site.config), "dkim", "rotate"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=site.folder)
        self.output = ""

    def read_until(self, words: str) -> str:
        assert self.process.stdout is not None
        guard = threading.Timer(WAIT_SECONDS, self.process.kill)
        guard.start()
        for line in self.process.stdout:
            self.output += line
            if words in line:
                break
        guard.cancel()
        assert words in self.output, self.output
        return self.output

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        self.process.communicate()
        return self.process.returncode


def test_a_rotation_switches_once_the_new_record_is_seen(site: Site) -> None:
    site.publish(site.generate())
    rotation = Rotation(site)
    record = found(VALUE, rotation.read_until("waiting for mail2._domainkey.example.com: no DKIM record"))
    assert "selector mail," in site.check()[1], "until then the old key signs"
    site.publish(record, "mail2._domainkey.example.com")
    rotation.read_until("example.com signs with the selector mail2 from the next reload (SIGHUP)")
    assert rotation.process.wait(WAIT_SECONDS) == 0
    code, err = site.check()
    assert code == 0
    assert "selector mail2, rsa 2048" in err
    assert "warning: dkim: signs with the selector mail2, which " in err
    assert site.dkim("check")[0] == 0
    assert sorted(file.name for file in site.keys.iterdir()) == ["mail.private", "mail.selector", "mail2.private"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_rotation_goes_on_with_the_same_key(site: Site, number: int) -> None:
    site.publish(site.generate())
    rotation = Rotation(site)
    record = found(VALUE, rotation.read_until("waiting for"))
    assert rotation.end(number) == (130 if number == signal.SIGINT else -number)
    code, err = site.check()
    assert code == 0
    assert "selector mail," in err
    site.publish(record, "mail2._domainkey.example.com")
    code, out, _ = site.dkim("rotate")
    assert code == 0
    assert found(VALUE, out) == record
    assert "selector mail2," in site.check()[1]


def test_a_rotation_can_be_undone_and_done_again(site: Site) -> None:
    site.publish(site.generate())
    for name in ("mail2", "mail3"):
        rotation = Rotation(site)
        site.publish(found(VALUE, rotation.read_until("waiting for")), f"{name}._domainkey.example.com")
        assert rotation.process.wait(WAIT_SECONDS) == 0
        assert f"selector {name}," in site.check()[1]
    (site.keys / "mail.selector").unlink()
    assert "selector mail," in site.check()[1]


def test_a_selector_set_in_the_configuration_wins_over_a_rotation_of_another(site: Site) -> None:
    site.publish(site.generate())
    site.generate("--selector", "new")
    (site.keys / "mail.selector").write_text("mail2\n")
    code, err = site.check()
    assert code == 78
    assert "remove that file to sign with the selector mail again" in err
    site.configure(domain="example.com", selector="new")
    code, err = site.check()
    assert code == 0
    assert "selector new," in err


def test_a_selector_file_with_nonsense_says_what_to_remove(site: Site) -> None:
    site.generate()
    (site.keys / "mail.selector").write_text("../../etc/passwd\n")
    code, err = site.check()
    assert code == 78
    assert "mail.selector cannot be used: it names no selector; remove it" in err
