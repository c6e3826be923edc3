"""Addresses within a time-out."""

from __future__ import annotations

import socket
import threading

import pytest

from mailer.transport.dial import SocketAddress
from mailer.transport.resolve import MAX_ADDRESSES, Resolver, system_lookup

HERE: SocketAddress = (socket.AF_INET, ("127.0.0.1", 25))
PATIENT_SECONDS = 20.0


def test_an_address_literal_asks_nobody() -> None:
    def never(_host: str, _port: int) -> list[SocketAddress]:
        raise AssertionError("asked")

    assert Resolver(never).resolve("127.0.0.1", 25, 0) == [HERE]
    assert Resolver(never).resolve("::1", 25, 0) == [(socket.AF_INET6, ("::1", 25, 0, 0))]


def test_a_resolver_that_hangs_costs_the_time_out_and_one_thread() -> None:
    asked, answer = [], threading.Event()

    def hangs(host: str, _port: int) -> list[SocketAddress]:
        asked.append(host)
        answer.wait(PATIENT_SECONDS)
        return [HERE]

    resolver = Resolver(hangs)
    for _ in range(3):
        with pytest.raises(socket.gaierror, match="no answer"):
            resolver.resolve("smtp.test", 25, 0.01)
    assert asked == ["smtp.test"]
    answer.set()
    assert resolver.resolve("smtp.test", 25, PATIENT_SECONDS) == [HERE]


def test_every_question_is_asked_anew_once_answered() -> None:
    answers = iter([[HERE], [HERE, HERE]])
    resolver = Resolver(lambda _host, _port: next(answers))
    assert len(resolver.resolve("smtp.test", 25, PATIENT_SECONDS)) == 1
    assert len(resolver.resolve("smtp.test", 25, PATIENT_SECONDS)) == 2


def test_no_address_and_too_many() -> None:
    with pytest.raises(socket.gaierror):
        Resolver(lambda _host, _port: []).resolve("smtp.test", 25, PATIENT_SECONDS)
    assert len(Resolver(lambda _host, _port: [HERE] * 50).resolve("smtp.test", 25, PATIENT_SECONDS)) == MAX_ADDRESSES


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "a..b"])
def test_what_is_no_name_is_a_dns_failure(name: str) -> None:
    with pytest.raises(OSError, match="not a host name"):
        Resolver().resolve(name, 25, PATIENT_SECONDS)


def test_the_systems_resolver_knows_localhost() -> None:
    assert HERE in system_lookup("localhost", 25)
