"""Manners: which entry says what about a domain and its servers, and who shares connections."""

from __future__ import annotations

import pytest

from mailer.config.schema import DomainConfig
from mailer.transport.manners import BUSY_SECONDS, LONGEST_LINE_SECONDS, TURN_SECONDS, UNKNOWN, Book, Site, fits

NOW = 1_700_000_000.0
GMAIL = "gmail-smtp-in.l.google.com"


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("gmail.com", "gmail.com", True),
        ("gmail.com", "GMAIL.com", True),
        ("gmail.com", "notgmail.com", False),
        ("gmail.com", "a.gmail.com", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        ("*", "anything.test", True),
        ("*", "", False),
    ],
)
def test_a_pattern_is_a_name_or_all_names_below_one(pattern: str, name: str, expected: bool) -> None:
    assert fits(pattern, name) == expected


def test_a_domain_of_which_nothing_is_known_gets_what_every_server_should_bear() -> None:
    assert Book([]).manners("example.org", "mx.example.org") == UNKNOWN


def test_each_number_comes_from_the_first_entry_that_fits_and_names_it() -> None:
    book = Book(
        [
            DomainConfig(domain="example.org", recipients_per_message=7),
            DomainConfig(domain="*", connections=3, recipients_per_message=50, tls="required"),
        ]
    )
    manners = book.manners("example.org")
    assert (manners.connections, manners.recipients_per_message, manners.tls) == (3, 7, "required")
    assert manners.messages_per_connection == UNKNOWN.messages_per_connection
    assert book.manners("other.test").recipients_per_message == 50


def test_the_users_entries_come_before_the_built_in_ones() -> None:
    usual = Book([]).manners("gmail.com", GMAIL)
    changed = Book([DomainConfig(domain="gmail.com", messages_per_connection=7)]).manners("gmail.com", GMAIL)
    assert changed == usual._replace(messages_per_connection=7)
    assert usual.site


def test_domains_at_one_hoster_share_their_connections_and_others_do_not() -> None:
    book = Book([])
    of_gmail, of_company = book.manners("gmail.com", GMAIL), book.manners("company.test", "ASPMX2.googlemail.com")
    assert of_gmail.site == of_company.site != ""
    assert book.manners("gmail.com").site == "", "its servers are not known yet"
    assert book.manners("company.test", "mx.company.test").site == ""
    assert book.manners("google.com.test", "mx.google.com.test").site == ""


def test_a_domain_that_has_its_own_number_of_connections_shares_them_with_nobody() -> None:
    book = Book([DomainConfig(domain="gmail.com", connections=30)])
    assert (book.manners("gmail.com", GMAIL).connections, book.manners("gmail.com", GMAIL).site) == (30, "")
    assert book.manners("company.test", GMAIL).site != ""


def test_an_entry_with_a_server_is_shared_by_all_whom_that_server_serves() -> None:
    book = Book([DomainConfig(mx="*.hoster.test", connections=4)])
    first, second = book.manners("a.test", "mx1.hoster.test"), book.manners("b.test", "mx2.hoster.test")
    assert first == second
    assert (first.connections, first.site) == (4, "*.hoster.test")


def test_an_entry_with_domain_and_server_needs_both() -> None:
    book = Book([DomainConfig(domain="a.test", mx="*.hoster.test", connections=4)])
    assert book.manners("a.test", "mx.hoster.test").connections == 4
    assert book.manners("b.test", "mx.hoster.test") == UNKNOWN
    assert book.manners("a.test", "mx.other.test") == UNKNOWN


@pytest.mark.parametrize(
    ("server", "most"),
    [
        (GMAIL, 10),
        ("outlook-com.olc.protection.outlook.com", 5),
        ("company-com.mail.protection.outlook.com", 10),
        ("company-com.g-v1.mx.microsoft", 10),
        ("mta5.am0.yahoodns.net", 5),
        ("mx3.qq.com", 2),
        ("mxbiz1.qq.com", 2),
    ],
)
def test_the_large_ones_are_known(server: str, most: int) -> None:
    manners = Book([]).manners("some.test", server)
    assert manners.connections == most
    assert manners.site


def test_a_site_takes_no_more_than_its_limit_and_knows_of_what_began_elsewhere() -> None:
    site = Site()
    site.move(1)
    assert site.enter(2, NOW) is None
    assert site.enter(2, NOW) is not None
    site.move(-1)
    assert site.enter(2, NOW) is None


def test_who_finds_a_site_full_stands_in_line() -> None:
    site = Site()
    site.move(1)
    turns = [site.enter(1, NOW) or 0.0 for _ in range(3)]
    assert turns == [NOW + BUSY_SECONDS + TURN_SECONDS * n for n in (1, 2, 3)]
    for _ in range(1000):
        last = site.enter(1, NOW)
    assert last == NOW + LONGEST_LINE_SECONDS
    later = NOW + 100.0
    assert site.enter(1, later) == later + BUSY_SECONDS + TURN_SECONDS, "the line has gone"
    assert site.enter(1, NOW) == NOW + LONGEST_LINE_SECONDS, "though the clock was set back"
