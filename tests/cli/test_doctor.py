"""``mailer doctor`` as people and programs use it: the whole command, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailer.cli import build_parser
from mailer.cli.doctor import case_of, default_domain
from mailer.config.load import load_text
from mailer.config.schema import Config
from mailer.doctor.case import Case, Target
from mailer.doctor.checklist import MAX_SECONDS
from mailer.signing.places import read_key_file
from mailer.signing.record import record_text
from tests.cli.program import ROOT, running, write_config
from tests.support.nameserver import Nameserver
from tests.support.upstream import Behaviour, Login, Upstream

ADDRESS = "192.0.2.1"

GOOD = {
    "example.test": {"MX": "10 mx.example.test", "TXT": f'"v=spf1 ip4:{ADDRESS} -all"'},
    "mx.example.test": {"A": "192.0.2.2"},
    "mail.example.test": {"A": ADDRESS},
    "_dmarc.example.test": {"TXT": '"v=DMARC1; p=none"'},
    "1.2.0.192.in-addr.arpa": {"PTR": "mail.example.test"},
}


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver(GOOD) as serving:
        yield serving


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(Behaviour(login=Login("user", "hunter2!"))) as serving:
        yield serving


def doctor(config: Path, *words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "mailer.py"), "doctor", "--config", str(config), *words],
        capture_output=True, text=True, timeout=2 * MAX_SECONDS, check=False, env=os.environ | (environ or {}),
    )  # fmt: skip


def forwarding(upstream: Upstream, password: str = "hunter2!") -> dict[str, Any]:
    provider = {"name": "up", "host": upstream.host, "port": upstream.port, "username": "user", "password": password}
    return {"forwardSMTP": True, "forwardProviders": [provider]}


def names_of(nameserver: Nameserver) -> dict[str, Any]:
    return {"dns": {"nameservers": [nameserver.address]}, "hostname": "mail.example.test"}


def test_a_relay_through_providers_is_looked_at_without_a_domain(tmp_path: Path, upstream: Upstream) -> None:
    path = write_config(tmp_path, **forwarding(upstream))
    path.chmod(0o600)
    answer = doctor(path)
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = {line.split()[1]: line for line in answer.stdout.splitlines()}
    assert lines["provider"].startswith("ok ")
    for name in ("mx", "spf", "dmarc", "ptr", "egress", "mta-sts", "tls-rpt"):
        assert lines[name].startswith("skipped ")
        assert "directDelivery" in lines[name]


def test_the_json_form_is_one_object_with_every_check(tmp_path: Path, nameserver: Nameserver, upstream: Upstream) -> None:
    path = write_config(tmp_path, **names_of(nameserver), **forwarding(upstream))
    target = f"{upstream.host}:{upstream.port}"
    answer = doctor(path, "Example.Test.", "--json", "--address", ADDRESS, "--target", target)
    said = json.loads(answer.stdout)
    assert sorted(said) == ["checks", "domain", "time"]
    assert said["domain"] == "example.test"
    assert {tuple(sorted(check)) for check in said["checks"]} == {("do", "name", "status", "text")}
    statuses = {check["name"]: check["status"] for check in said["checks"]}
    for name in ("mx", "spf", "dmarc", "ptr", "egress", "mta-sts", "tls-rpt", "provider up", "spool", "ports", "open-files"):
        assert statuses[name] == "ok", said
    assert answer.returncode == 0


def test_the_order_of_the_lines_is_always_the_same(tmp_path: Path, nameserver: Nameserver) -> None:
    path = write_config(tmp_path, **names_of(nameserver))
    runs = [json.loads(doctor(path, "example.test", "--json", "--address", ADDRESS).stdout)["checks"] for _ in range(2)]
    first, second = ([check["name"] for check in checks] for checks in runs)
    assert first == second
    assert first[:2] == ["mx", "spf"]


def test_a_failed_check_ends_with_69_and_says_what_to_do(tmp_path: Path, nameserver: Nameserver) -> None:
    nameserver.remove("1.2.0.192.in-addr.arpa")
    path = write_config(tmp_path, **names_of(nameserver))
    answer = doctor(path, "example.test", "--address", ADDRESS)
    assert answer.returncode == os.EX_UNAVAILABLE == 69
    [line] = [line for line in answer.stdout.splitlines() if line.startswith("failed  ptr")]
    assert "-- to do: let whoever gives you the address" in line


def test_warnings_alone_end_with_0(tmp_path: Path, nameserver: Nameserver, upstream: Upstream) -> None:
    nameserver.remove("_dmarc.example.test")
    path = write_config(tmp_path, **names_of(nameserver))
    answer = doctor(path, "example.test", "--json", "--address", ADDRESS, "--target", f"{upstream.host}:{upstream.port}")
    statuses = {check["name"]: check["status"] for check in json.loads(answer.stdout)["checks"]}
    assert (statuses["dmarc"], answer.returncode) == ("warning", 0)


def test_a_nameserver_that_never_answers_does_not_hold_it_up(tmp_path: Path, nameserver: Nameserver) -> None:
    nameserver.swallow("*")
    path = write_config(tmp_path, **names_of(nameserver) | {"dns": {"nameservers": [nameserver.address], "timeout": 1}})
    answer = doctor(path, "example.test", "--json", "--address", ADDRESS)
    statuses = {check["name"]: check["status"] for check in json.loads(answer.stdout)["checks"]}
    assert (answer.returncode, statuses["mx"], statuses["spf"], statuses["open-files"]) == (69, "failed", "failed", "ok")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_is_shown_though_a_server_repeats_it(tmp_path: Path, upstream: Upstream, form: tuple[str, ...]) -> None:
    upstream.on("auth", "535 5.7.8 bad login user swordfish-17\x1b[2J AHVzZXIAc3dvcmRmaXNoLTE3")
    path = write_config(tmp_path, **forwarding(upstream, "swordfish-17"))
    answer = doctor(path, *form)
    assert answer.returncode == 69
    assert "bad login user ***" in answer.stdout
    for secret in ("swordfish-17", "AHVzZXIAc3dvcmRmaXNoLTE3", "\x1b"):
        assert secret not in answer.stdout + answer.stderr


def test_hostile_text_is_escaped_on_a_terminal_without_utf_8(tmp_path: Path, nameserver: Nameserver) -> None:
    nameserver.remove("example.test", "TXT")
    nameserver.add("example.test", "TXT", '"v=spf1 ip4:192.0.2.9 \\027[31m\\195\\164"')
    path = write_config(tmp_path, **names_of(nameserver))
    answer = doctor(path, "example.test", "--address", ADDRESS, environ={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert (answer.returncode, "Traceback" in answer.stderr) == (69, False)
    assert "\\x1b[31m" in answer.stdout
    assert answer.stdout.isascii()


def test_beside_a_running_mailer_it_disturbs_nothing_and_names_it(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    with running("--config", str(path)) as program:
        program.wait_ready()
        before = {str(p) for p in (tmp_path / "data").rglob("*")}
        answer = doctor(path)
        assert f"in use by the running mailer, process {program.pid}" in answer.stdout
        assert answer.returncode == 0
        assert {str(p) for p in (tmp_path / "data").rglob("*")} == before


@pytest.mark.parametrize(
    "words",
    [
        ("nodomain",),
        ("[192.0.2.1]",),
        ("exa mple.test",),
        ("--address", "mail.example.test"),
        ("--target", "mx.test:0"),
        ("--target", "mx.test:smtp"),
        ("--target", "mx test"),
        ("--target",),
        *((("--target", "mx.test") * 11,)),
        ("a.test", "b.test"),
    ],
)
def test_words_that_mean_nothing_end_with_64(tmp_path: Path, words: tuple[str, ...]) -> None:
    answer = doctor(write_config(tmp_path), *words)
    assert (answer.returncode, answer.stdout) == (os.EX_USAGE, "")
    assert "\nmailer" in f"\n{answer.stderr}"


def test_a_wrong_configuration_ends_with_78(tmp_path: Path) -> None:
    answer = doctor(write_config(tmp_path, nope=1))
    assert (answer.returncode, "nope" in answer.stderr) == (78, True)


@pytest.mark.parametrize(
    ("settings", "domain"),
    [
        ({"hostname": "mail.example.test"}, "mail.example.test"),
        ({"hostname": "mail.example.test", "defaultUsername": "app@Example.Test", "defaultPassword": "x"}, "example.test"),
        ({"hostname": "mail.example.test", "dkim": {"domain": "signs.test"}}, "signs.test"),
        ({"hostname": "vm"}, ""),
        ({"hostname": "[192.0.2.1]"}, ""),
    ],
)
def test_the_domain_is_that_which_signs_or_logs_in_or_our_own(settings: dict[str, Any], domain: str) -> None:
    assert default_domain(load_text(json.dumps(settings), {}).config) == domain


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("mx.test", Target("mx.test", 25)),
        ("mx.test:2525", Target("mx.test", 2525)),
        ("192.0.2.1", Target("192.0.2.1", 25)),
        ("192.0.2.1:2525", Target("192.0.2.1", 2525)),
        ("2001:db8::1", Target("2001:db8::1", 25)),
        ("[2001:db8::1]", Target("2001:db8::1", 25)),
        ("[2001:db8::1]:2525", Target("2001:db8::1", 2525)),
    ],
)
def test_a_target_is_a_host_or_an_address_with_or_without_a_port(text: str, target: Target) -> None:
    assert build_case("--target", text).targets == (target,)


def test_a_domain_beyond_ascii_is_looked_up_in_its_ascii_form() -> None:
    assert build_case("b\u00fccher.test").domain == "xn--bcher-kva.test"
    assert build_case("stra\u00dfe.test").domain == "xn--strae-oqa.test", "not strasse.test, which is somebody else's"


def build_case(*words: str) -> Case:
    return case_of(build_parser().parse_args(["doctor", *words]), Config())


def test_a_sender_in_its_own_right_with_everything_in_place_is_all_ok(
    tmp_path: Path, nameserver: Nameserver, upstream: Upstream
) -> None:
    settings = {"directDelivery": {"enabled": True}, "dkim": {"enabled": True, "domain": "example.test"}}
    path = write_config(tmp_path, **names_of(nameserver), **settings)
    made = subprocess.run(
        [sys.executable, str(ROOT / "mailer.py"), "dkim", "generate", "--config", str(path), "--domain", "example.test"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "PRIVATE" not in made.stdout
    key = read_key_file(tmp_path / "data" / "keys" / "example.test" / "mail.private")
    text = record_text(key)
    nameserver.add("mail._domainkey.example.test", "TXT", f'"{text[:200]}" "{text[200:]}"')
    nameserver.remove("_dmarc.example.test")
    nameserver.add("_dmarc.example.test", "TXT", '"v=DMARC1; p=reject; adkim=s; aspf=s"')
    answer = doctor(path, "--json", "--address", ADDRESS, "--target", f"{upstream.host}:{upstream.port}")
    said = json.loads(answer.stdout)
    checks = {check["name"]: check for check in said["checks"]}
    assert (answer.returncode, said["domain"]) == (0, "example.test")
    assert {checks[name]["status"] for name in ("mx", "spf", "dkim", "dmarc", "ptr", "egress", "mta-sts", "tls-rpt")} == {"ok"}
    assert "aligned by DKIM and SPF" in checks["dmarc"]["text"]
