from __future__ import annotations

from pathlib import Path

from mailer.dns.hosts import HostsFile, parse_hosts


def test_a_name_may_have_several_addresses_and_an_address_several_names() -> None:
    text = "192.0.2.1 Mail.Intern.Test mail # the relay\n2001:db8::1\tmail\n192.0.2.1 mail\n"
    assert parse_hosts(text) == {"mail.intern.test": ("192.0.2.1",), "mail": ("192.0.2.1", "2001:db8::1")}


def test_lines_that_say_nothing_are_passed_over() -> None:
    assert parse_hosts("# 192.0.2.1 a\n\n192.0.2.1\nnonsense b\n999.1.1.1 c\n") == {}


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    hosts = HostsFile(path)
    assert hosts.addresses("mail.test") == ()
    path.write_text("192.0.2.1 mail.test\n")
    assert hosts.addresses("mail.test") == ("192.0.2.1",)


def test_localhost_is_this_machine_even_where_the_file_does_not_say_so(tmp_path: Path) -> None:
    hosts = HostsFile(tmp_path / "hosts")
    assert hosts.addresses("localhost") == hosts.addresses("db.localhost") == ("127.0.0.1", "::1")
    assert hosts.addresses("notlocalhost") == ()
