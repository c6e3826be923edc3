from __future__ import annotations

from pathlib import Path

import pytest

from mailer.dns.nameservers import Nameserver, Nameservers, parse_nameserver, parse_resolv_conf


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        ("192.0.2.1:5353", "192.0.2.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]", "2001:db8::1", 53),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
    ],
)
def test_a_configured_server_is_trusted(text: str, host: str, port: int) -> None:
    assert parse_nameserver(text) == Nameserver(host, port, vouches=True)


def test_a_server_is_named_as_the_configuration_names_it() -> None:
    names = ["192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353"]
    assert [str(parse_nameserver(name)) for name in names] == names


def test_the_systems_servers_are_read_and_comments_and_nonsense_are_not() -> None:
    text = "# nameserver 192.0.2.9\nsearch a.test\nnameserver 192.0.2.1\nnameserver x\nnameserver\nnameserver fe80::1%eth0\n"
    assert [server.host for server in parse_resolv_conf(text)] == ["192.0.2.1", "fe80::1%eth0"]


def test_no_more_of_the_systems_servers_are_asked_than_the_system_asks() -> None:
    text = "".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 6))
    assert [server.host for server in parse_resolv_conf(text)] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_without_a_server_it_is_this_machine() -> None:
    assert parse_resolv_conf("") == (Nameserver("127.0.0.1", 53, vouches=True),)


@pytest.mark.parametrize(
    ("text", "vouches"),
    [
        ("nameserver 127.0.0.53\n", True),
        ("nameserver ::1\n", True),
        ("nameserver 192.0.2.1\n", False),
        ("nameserver 192.0.2.1\noptions edns0 trust-ad\n", True),
        ("options timeout:1\nnameserver 192.0.2.1\n", False),
    ],
)
def test_only_a_server_on_this_machine_vouches_unless_the_system_trusts_it(text: str, vouches: bool) -> None:
    assert [server.vouches for server in parse_resolv_conf(text)] == [vouches]


def test_the_systems_servers_are_read_again_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    nameservers = Nameservers((), resolv_conf=file)
    assert [server.host for server in nameservers.current()] == ["127.0.0.1"]
    file.write_text("nameserver 192.0.2.1\n")
    assert [server.host for server in nameservers.current()] == ["192.0.2.1"]
    other = tmp_path / "other"
    other.write_text("nameserver 192.0.2.2\n")
    other.replace(file)
    assert [server.host for server in nameservers.current()] == ["192.0.2.2"]


def test_the_systems_servers_are_not_looked_at_where_others_are_configured(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    assert [server.host for server in Nameservers(["192.0.2.7"], resolv_conf=file).current()] == ["192.0.2.7"]


def test_a_server_that_was_silent_comes_last_for_a_while() -> None:
    now = 0.0
    nameservers = Nameservers(["192.0.2.1", "192.0.2.2", "192.0.2.3"], lambda: now)
    first, second, third = nameservers.current()
    nameservers.heard(second, {first})
    assert nameservers.current() == (second, third, first)
    now = 30.0
    assert nameservers.current() == (first, second, third)


def test_a_server_that_answers_again_is_asked_in_its_turn_again() -> None:
    nameservers = Nameservers(["192.0.2.1", "192.0.2.2"], lambda: 0.0)
    first, second = nameservers.current()
    nameservers.heard(second, {first})
    nameservers.heard(first, {second})
    assert nameservers.current() == (first, second)
