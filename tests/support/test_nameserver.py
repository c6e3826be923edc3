"""The nameserver of tests, asked by a client that is not ours: dnspython's own."""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from tests.support.nameserver import Nameserver

WITHIN_SECONDS = 10.0


def ask(nameserver: Nameserver, name: str, kind: str, within: float = WITHIN_SECONDS) -> tuple[dns.message.Message, bool]:
    query = dns.message.make_query(name, kind, use_edns=0)
    return dns.query.udp_with_fallback(query, nameserver.host, timeout=within, port=nameserver.port)


def test_gives_its_records_and_counts_who_asked() -> None:
    with Nameserver({"a.test": {"MX": ["10 mx.a.test", "20 my.a.test"]}}) as nameserver:
        nameserver.add("a.test", "MX", "30 mz.a.test")
        response, _ = ask(nameserver, "a.test", "MX")
        assert sorted(str(record) for record in response.answer[0]) == ["10 mx.a.test.", "20 my.a.test.", "30 mz.a.test."]
        assert (nameserver.count("a.test", "MX", "udp"), nameserver.count(transport="tcp")) == (1, 0)


def test_tells_a_name_that_does_not_exist_from_one_without_such_records() -> None:
    with Nameserver({"mx.a.test": {"A": "192.0.2.1"}}) as nameserver:
        assert ask(nameserver, "b.test", "A")[0].rcode() == dns.rcode.NXDOMAIN
        between, _ = ask(nameserver, "a.test", "A")
        assert (between.rcode(), len(between.answer), len(between.authority)) == (dns.rcode.NOERROR, 0, 1)


def test_follows_aliases() -> None:
    with Nameserver({"a.test": {"CNAME": "b.test"}, "b.test": {"A": "192.0.2.1"}}) as nameserver:
        response, _ = ask(nameserver, "a.test", "A")
        assert [rrset.to_text() for rrset in response.answer] == ["a.test. 300 IN CNAME b.test.", "b.test. 300 IN A 192.0.2.1"]


def test_answers_over_tcp_what_is_too_long_for_udp() -> None:
    with Nameserver({"long.test": {"TXT": [f'"{"x" * 200}{n}"' for n in range(20)]}}) as nameserver:
        response, used_tcp = ask(nameserver, "long.test", "TXT")
        assert used_tcp
        assert len(response.answer[0]) == 20


def test_makes_the_troubles_that_it_is_told_to_make() -> None:
    with Nameserver({"a.test": {"A": "192.0.2.1"}}) as nameserver:
        nameserver.refuse("a.test")
        assert ask(nameserver, "a.test", "A")[0].rcode() == dns.rcode.SERVFAIL
        nameserver.truncate("a.test")
        assert ask(nameserver, "a.test", "A")[1]
        nameserver.swallow("*")
        with pytest.raises(dns.exception.Timeout):
            ask(nameserver, "b.test", "A", within=0.05)
        nameserver.heal("*")
        nameserver.heal("a.test")
        assert ask(nameserver, "a.test", "A")[0].answer
