"""Questions and answers over real sockets, with a nameserver that makes every trouble there is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.dns.lookup import MAX_RECORDS, MAX_TEXT_BYTES, Dns, Status, Tlsa
from tests.support.nameserver import Nameserver

PATIENT_SECONDS = 20.0  # for what is answered: the machine may be busy
BRIEF_SECONDS = 0.2  # for what is not


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def nameserver() -> Iterator[Nameserver]:
    with Nameserver() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(nameserver: Nameserver, clock: Clock) -> Dns:
    return Dns([nameserver.address], PATIENT_SECONDS, clock)


def brief(*nameservers: Nameserver) -> Dns:
    return Dns([nameserver.address for nameserver in nameservers], BRIEF_SECONDS)


# what is found


def test_mail_servers_come_with_their_preference_and_without_a_dot(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "MX", "20 B.example.test", "10 a.example.test")
    said = resolver.mx("Example.TEST.")
    assert sorted(said.records) == [(10, "a.example.test"), (20, "b.example.test")]
    assert (said.status, said.name, said.why, said.is_authentic) == (Status.FOUND, "example.test", "", False)


def test_the_null_mx_is_an_empty_name(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "MX", "0 .")
    assert resolver.mx("example.test").records == ((0, ""),)


def test_addresses_are_found_by_family(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("mx.test", "A", "192.0.2.1", "192.0.2.2")
    nameserver.add("mx.test", "AAAA", "2001:db8::1")
    assert sorted(resolver.addresses("mx.test", socket.AF_INET).records) == ["192.0.2.1", "192.0.2.2"]
    assert resolver.addresses("mx.test", socket.AF_INET6).records == ("2001:db8::1",)


def test_the_strings_of_a_text_record_are_joined_and_bytes_stay_bytes(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("_dmarc.example.test", "TXT", '"v=DMARC1;" " p=none\\228"')
    assert resolver.txt("_dmarc.example.test").records == ("v=DMARC1; p=none\xe4",)


def test_tlsa_and_ptr_records_are_values(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("_25._tcp.mx.test", "TLSA", "3 1 1 " + "0a" * 32)
    nameserver.add("1.2.0.192.in-addr.arpa", "PTR", "mx.test")
    assert resolver.tlsa("_25._tcp.mx.test").records == (Tlsa(3, 1, 1, b"\x0a" * 32),)
    assert resolver.ptr("192.0.2.1").records == ("mx.test",)


def test_a_domain_beyond_ascii_is_asked_for_in_ascii(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("xn--strae-oqa.test", "MX", "10 mx.test")
    assert resolver.mx("Straße.test").records == ((10, "mx.test"),)


def test_the_hosts_file_comes_before_dns(nameserver: Nameserver, resolver: Dns) -> None:
    assert resolver.addresses("localhost", socket.AF_INET).records == ("127.0.0.1",)
    assert nameserver.count() == 0


def test_nothing_about_localhost_is_asked_of_dns(nameserver: Nameserver, resolver: Dns) -> None:
    assert resolver.mx("app.localhost").status is Status.NO_DATA
    assert nameserver.count() == 0


# what is not there


def test_a_name_without_such_records_is_told_from_one_that_does_not_exist(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "A", "192.0.2.1")
    no_data, no_name = resolver.mx("example.test"), resolver.mx("other.test")
    assert (no_data.status, no_data.why) == (Status.NO_DATA, "example.test has no MX record")
    assert (no_name.status, no_name.why) == (Status.NO_SUCH_NAME, "other.test does not exist")


@pytest.mark.parametrize("name", ["", "a..test", "a b.test", "x" * 64 + ".test", "a." * 127 + "test", "ü\u200b.test", "a\0.test"])
def test_what_is_no_domain_name_is_not_asked_for(nameserver: Nameserver, resolver: Dns, name: str) -> None:
    assert resolver.mx(name).status is Status.NO_SUCH_NAME
    assert nameserver.count() == 0


def test_a_referral_is_not_taken_for_there_being_nothing(nameserver: Nameserver, resolver: Dns) -> None:
    def refer(query: dns.message.Message) -> Sequence[bytes]:
        response = dns.message.make_response(query)
        response.authority.append(dns.rrset.from_text("test.", 300, "IN", "NS", "ns.test."))
        return [response.to_wire()]

    nameserver.forge("example.test", refer)
    said = resolver.mx("example.test")
    assert (said.status, said.why) == (Status.FAILED, "example.test MX: the nameserver is no resolver, it refers to others")


# aliases


def test_an_alias_is_followed(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("alias.test", "CNAME", "example.test")
    nameserver.add("example.test", "MX", "10 mx.test")
    said = resolver.mx("alias.test")
    assert (said.records, said.name) == (((10, "mx.test"),), "example.test")


def test_an_alias_that_the_nameserver_does_not_follow_is_asked_on(nameserver: Nameserver, resolver: Dns) -> None:
    def only_the_alias(query: dns.message.Message) -> Sequence[bytes]:
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text("alias.test.", 300, "IN", "CNAME", "example.test."))
        return [response.to_wire()]

    nameserver.forge("alias.test", only_the_alias)
    nameserver.add("example.test", "A", "192.0.2.1")
    said = resolver.addresses("alias.test", socket.AF_INET)
    assert (said.records, said.name) == (("192.0.2.1",), "example.test")


def test_an_alias_of_a_name_that_does_not_exist_does_not_exist(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("alias.test", "CNAME", "gone.test")
    assert resolver.mx("alias.test").status is Status.NO_SUCH_NAME


def test_aliases_in_a_circle_are_a_failure(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("a.test", "CNAME", "b.test")
    nameserver.add("b.test", "CNAME", "a.test")
    assert resolver.mx("a.test").status is Status.FAILED


def test_aliases_that_never_end_are_a_failure(nameserver: Nameserver, resolver: Dns) -> None:
    def one_more(query: dns.message.Message) -> Sequence[bytes]:
        response = dns.message.make_response(query)
        name = query.question[0].name
        response.answer.append(dns.rrset.from_text(name, 300, "IN", "CNAME", f"x{len(nameserver.asked)}.test."))
        return [response.to_wire()]

    nameserver.forge("*", one_more)
    said = resolver.mx("a.test")
    assert (said.status, said.why) == (Status.FAILED, "a.test is an alias that leads in a circle or too far")
    assert nameserver.count() < 20


# nameservers in trouble


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTAUTH"])
def test_a_refusal_is_a_failure_that_names_it(nameserver: Nameserver, resolver: Dns, rcode: str) -> None:
    nameserver.refuse("example.test", rcode)
    said = resolver.mx("example.test")
    assert (said.status, said.why) == (Status.FAILED, f"example.test MX: {rcode}")


def test_what_a_server_adds_to_its_refusal_stays_on_one_line(nameserver: Nameserver, resolver: Dns) -> None:
    def explain(query: dns.message.Message) -> Sequence[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
        response.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "bogus\r\nX: \x1b[2J")])
        return [response.to_wire()]

    nameserver.forge("example.test", explain)
    why = resolver.mx("example.test").why
    assert "bogus" in why
    assert why.isprintable()


def test_silence_is_a_failure_after_the_time_out(nameserver: Nameserver) -> None:
    nameserver.swallow("example.test")
    said = brief(nameserver).mx("example.test")
    assert (said.status, said.why) == (Status.FAILED, f"example.test MX: no answer ({nameserver.address})")
    assert nameserver.count("example.test") == 2


def test_the_next_nameserver_is_asked_where_one_refuses_is_silent_or_is_not_there(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 mx.test")
    with Nameserver() as refusing, Nameserver() as silent, Nameserver() as gone:
        refusing.refuse("*")
        silent.swallow("*")
        gone.close()
        several = [gone.address, refusing.address, silent.address, nameserver.address]
        assert Dns(several, 4.0).mx("example.test").status is Status.FOUND
        assert refusing.count() == 1
        assert silent.count() > 0


def test_a_nameserver_that_was_silent_is_not_waited_for_by_the_next_question(nameserver: Nameserver) -> None:
    nameserver.add("a.test", "MX", "10 mx.test")
    nameserver.add("b.test", "MX", "10 mx.test")
    with Nameserver() as silent:
        silent.swallow("*")
        resolver = Dns([silent.address, nameserver.address], 8.0)
        assert [resolver.mx(domain).status for domain in ("a.test", "b.test")] == [Status.FOUND, Status.FOUND]
        assert silent.count("a.test") > 0
        assert silent.count("b.test") == 0


def test_an_answer_that_comes_late_still_counts(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 mx.test")
    nameserver.hold("example.test")
    with Nameserver() as second:
        second.swallow("*")
        with ThreadPoolExecutor(1) as threads:
            said = threads.submit(Dns([nameserver.address, second.address], 4.0).mx, "example.test")
            second.wait_for(1)
            nameserver.release()
            assert said.result(PATIENT_SECONDS).status is Status.FOUND


def test_a_truncated_answer_is_asked_for_over_tcp(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "MX", "10 mx.test")
    nameserver.truncate("example.test")
    assert resolver.mx("example.test").records == ((10, "mx.test"),)
    assert (nameserver.count(transport="udp"), nameserver.count(transport="tcp")) == (1, 1)


def test_a_server_that_is_deaf_over_tcp_leaves_time_to_the_next(nameserver: Nameserver) -> None:
    nameserver.add("example.test", "MX", "10 mx.test")
    with Nameserver() as deaf:
        deaf.truncate("example.test", is_deaf=True)
        assert Dns([deaf.address, nameserver.address], 4.0).mx("example.test").status is Status.FOUND
        assert deaf.count(transport="tcp") == 1


def test_an_answer_that_is_cut_short_over_tcp_too_is_no_answer(nameserver: Nameserver, resolver: Dns) -> None:
    def cut_short(query: dns.message.Message) -> Sequence[bytes]:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    nameserver.forge("example.test", cut_short)
    assert resolver.mx("example.test").status is Status.FAILED


def test_a_server_that_knows_no_edns_is_asked_without(clock: Clock) -> None:
    with Nameserver({"example.test": {"MX": "10 mx.test"}}, knows_edns=False) as old:
        assert Dns([old.address], PATIENT_SECONDS, clock).mx("example.test").status is Status.FOUND
        assert old.count() == 2


# what strangers send


def test_an_answer_to_something_else_is_not_taken(nameserver: Nameserver, resolver: Dns) -> None:
    def spoofed(query: dns.message.Message) -> Sequence[bytes]:
        true = dns.message.make_response(query)
        true.answer.append(dns.rrset.from_text("example.test.", 300, "IN", "A", "192.0.2.1"))
        wrong_id = dns.message.make_response(query)
        wrong_id.id = (query.id + 1) % 65536
        other = dns.message.make_response(dns.message.make_query("evil.test", "A", id=query.id))
        return [b"", b"\0" * 11, wrong_id.to_wire(), query.to_wire(), other.to_wire(), true.to_wire()]

    nameserver.forge("example.test", spoofed)
    assert resolver.addresses("example.test", socket.AF_INET).records == ("192.0.2.1",)


def test_names_that_are_none_are_dropped(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "MX", "10 192.0.2.1", r"10 a\032b.test", r"10 a\010.test", r"10 <x>.test", "10 mx_1.test")
    assert resolver.mx("example.test").records == ((10, "mx_1.test"),)


def test_an_answer_without_a_usable_record_is_not_one_without_records(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "MX", "10 192.0.2.1")
    said = resolver.mx("example.test")
    assert (said.status, said.records) == (Status.FOUND, ())


def test_no_more_records_are_kept_than_anybody_needs(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "MX", *(f"{n} mx{n}.example.test" for n in range(500)))
    assert len(resolver.mx("example.test").records) == MAX_RECORDS


def test_no_more_text_is_kept_than_anybody_needs(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "TXT", *(f'"{n:0200}"' * 5 for n in range(50)))
    assert 0 < sum(map(len, resolver.txt("example.test").records)) <= MAX_TEXT_BYTES


def test_nonsense_from_a_server_is_an_answer_or_a_failure_but_never_an_exception() -> None:
    with Nameserver() as hostile:
        resolver = Dns([hostile.address], PATIENT_SECONDS)

        @given(st.binary(max_size=200), st.integers(0, 2**48 - 1) | st.just(2**32), st.sampled_from([b"\x80", b"\x83", b"\x85"]))
        def answers(rubbish: bytes, counts: int, rcode: bytes) -> None:
            """Behind a header and a question that fit, since all else is not even looked at."""

            def forged(query: dns.message.Message) -> Sequence[bytes]:
                wire = query.to_wire()
                question_ends = wire.index(b"\0", 12) + 5
                header = wire[:2] + b"\x81" + rcode + b"\0\1" + counts.to_bytes(6, "big")
                return [header + wire[12:question_ends] + rubbish]

            resolver.forget()
            hostile.forge("*", forged)
            assert resolver.mx("example.test").status in set(Status)

        answers()


def answer_of(query: dns.message.Message, kind: int, *data: bytes) -> bytes:
    """An answer whose records have any bytes as their data."""
    wire = query.to_wire()
    question = wire[12 : wire.index(b"\0", 12) + 5]
    head = b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1\0\0\0\x3c"
    records = b"".join(head + len(each).to_bytes(2, "big") + each for each in data)
    return wire[:2] + b"\x81\x80\0\1" + len(data).to_bytes(2, "big") + b"\0\0\0\0" + question + records


def test_a_broken_record_does_not_spoil_those_beside_it(nameserver: Nameserver, resolver: Dns) -> None:
    good, broken = b"\3\1\1" + b"\xab" * 32, b"\3\1\1" + b"\xab" * 7
    nameserver.forge("some.test", lambda query: [answer_of(query, 52, broken, good)])
    nameserver.forge("none.test", lambda query: [answer_of(query, 52, broken)])
    several = [b"\3\1\1" + bytes([n]) * 32 for n in range(9)]
    nameserver.forge("short.test", lambda query: [answer_of(query, 52, *several)[:150]])
    assert resolver.tlsa("some.test").records == (Tlsa(3, 1, 1, b"\xab" * 32),)
    assert resolver.tlsa("none.test").status is Status.FAILED
    assert resolver.tlsa("short.test").status is Status.FAILED


def test_a_record_that_is_there_twice_counts_once(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.forge("example.test", lambda query: [answer_of(query, 1, b"\x7f\0\0\2", b"\x7f\0\0\2")])
    assert resolver.addresses("example.test", socket.AF_INET).records == ("127.0.0.2",)


# the cache


def test_an_answer_is_kept_for_its_ttl(nameserver: Nameserver, resolver: Dns, clock: Clock) -> None:
    nameserver.add("example.test", "MX", "10 mx.test", ttl=60)
    resolver.mx("example.test")
    clock.now += 59
    resolver.mx("EXAMPLE.test")
    assert nameserver.count() == 1
    clock.now += 1
    resolver.mx("example.test")
    assert nameserver.count() == 2


@pytest.mark.parametrize(
    ("ttl", "kept_seconds"),
    [(0, 1), (10_000_000, 86_400)],
)
def test_a_ttl_is_believed_within_reason(
    nameserver: Nameserver, resolver: Dns, clock: Clock, ttl: int, kept_seconds: int
) -> None:
    nameserver.add("example.test", "MX", "10 mx.test", ttl=ttl)
    resolver.mx("example.test")
    clock.now += kept_seconds - 0.5
    resolver.mx("example.test")
    assert nameserver.count() == 1
    clock.now += 0.5
    resolver.mx("example.test")
    assert nameserver.count() == 2


@pytest.mark.parametrize(("minimum", "kept_seconds"), [(60, 60), (1_000_000, 3600)])
def test_that_there_is_nothing_is_kept_as_long_as_the_zone_says(
    nameserver: Nameserver, resolver: Dns, clock: Clock, minimum: int, kept_seconds: int
) -> None:
    nameserver.add("test", "SOA", f"ns.test. nobody.test. 1 60 60 60 {minimum}", ttl=1_000_000)
    resolver.mx("gone.test")
    clock.now += kept_seconds - 1
    assert resolver.mx("gone.test").status is Status.NO_SUCH_NAME
    assert nameserver.count() == 1
    clock.now += 1
    resolver.mx("gone.test")
    assert nameserver.count() == 2


def test_a_failure_is_kept_for_a_moment_so_that_a_server_in_trouble_is_left_alone(
    nameserver: Nameserver, resolver: Dns, clock: Clock
) -> None:
    nameserver.refuse("example.test")
    resolver.mx("example.test")
    asked = nameserver.count()
    clock.now += 4
    resolver.mx("example.test")
    assert nameserver.count() == asked
    nameserver.heal("example.test")
    nameserver.add("example.test", "MX", "10 mx.test")
    clock.now += 1
    assert resolver.mx("example.test").status is Status.FOUND


def test_forgotten_answers_are_asked_for_anew(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("example.test", "MX", "10 mx.test")
    resolver.mx("example.test")
    resolver.forget()
    resolver.mx("example.test")
    assert nameserver.count() == 2


def test_many_who_ask_for_one_name_are_one_question_and_keep_nobody_else_waiting(nameserver: Nameserver, resolver: Dns) -> None:
    nameserver.add("slow.test", "MX", "10 mx.test")
    nameserver.add("fast.test", "MX", "10 mx.test")
    nameserver.hold("slow.test")
    begun = threading.Barrier(9)

    def ask() -> Status:
        begun.wait(PATIENT_SECONDS)
        return resolver.mx("slow.test").status

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(ask) for _ in range(8)]
        begun.wait(PATIENT_SECONDS)
        nameserver.wait_for(1, "slow.test")
        assert resolver.mx("fast.test").status is Status.FOUND
        nameserver.release()
        assert {future.result(PATIENT_SECONDS) for future in waiting} == {Status.FOUND}
    assert nameserver.count("slow.test") == 1


# who vouches


def test_an_answer_is_authentic_where_a_trusted_server_says_so() -> None:
    with Nameserver({"example.test": {"MX": "10 mx.test"}}, vouches=True) as validating:
        said = Dns([validating.address], PATIENT_SECONDS).mx("example.test")
        assert (said.status, said.is_authentic) == (Status.FOUND, True)


def test_every_question_wants_to_know_whether_it_is_authentic(nameserver: Nameserver, resolver: Dns) -> None:
    flags: list[tuple[bool, bool]] = []

    def note(query: dns.message.Message) -> Sequence[bytes]:
        flags.append((bool(query.ednsflags & dns.flags.DO), bool(query.flags & dns.flags.AD)))
        return [dns.message.make_response(query).to_wire()]

    nameserver.forge("example.test", note)
    resolver.mx("example.test")
    assert flags == [(True, True)]
