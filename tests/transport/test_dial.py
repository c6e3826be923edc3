"""Connections to the first address that answers, over real sockets: one that is deaf is a listener whose queue is full."""

from __future__ import annotations

import contextlib
import socket
import warnings
from collections.abc import Iterator

import pytest

from mailer.transport.dial import SocketAddress, connect, interleaved

WITHIN_SECONDS = 20.0
V4, V6 = socket.AF_INET, socket.AF_INET6


def place(listener: socket.socket) -> SocketAddress:
    return listener.family, listener.getsockname()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as open_to_all:
        yield open_to_all


@pytest.fixture
def refusing() -> Iterator[SocketAddress]:
    with socket.socket() as bound_but_silent:
        bound_but_silent.bind(("127.0.0.1", 0))
        yield place(bound_but_silent)


@pytest.fixture
def deaf() -> Iterator[SocketAddress]:
    """Packets to it are swallowed: a listener that nobody accepts from, with its queue full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(full.getsockname())
            except TimeoutError:
                break
        yield place(full)


def test_a_single_address_is_connected_to(listener: socket.socket) -> None:
    with connect([place(listener)], WITHIN_SECONDS) as connection:
        assert connection.getpeername() == listener.getsockname()
        assert connection.getblocking()


def test_the_next_address_is_tried_when_one_refuses(refusing: SocketAddress, listener: socket.socket) -> None:
    with connect([refusing, place(listener)], WITHIN_SECONDS) as connection:
        assert connection.getpeername() == listener.getsockname()


def test_an_address_that_swallows_packets_leaves_time_to_the_next(deaf: SocketAddress, listener: socket.socket) -> None:
    with connect([deaf, deaf, deaf, place(listener)], 2.0) as connection:
        assert connection.getpeername() == listener.getsockname()


def test_an_address_that_is_all_swallowed_ends_with_a_time_out(deaf: SocketAddress) -> None:
    with pytest.raises(TimeoutError):
        connect([deaf], 0.2)


def test_a_refusal_of_all_is_told_as_what_it_is(refusing: SocketAddress) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect([refusing, refusing], WITHIN_SECONDS)


def test_no_address_is_an_error_too() -> None:
    with pytest.raises(OSError, match="no address"):
        connect([], WITHIN_SECONDS)


def test_an_address_without_a_route_does_not_keep_the_next_waiting(listener: socket.socket) -> None:
    nowhere: SocketAddress = (V6, ("2001:db8::1", 25, 0, 0))
    with connect([nowhere, place(listener)], WITHIN_SECONDS) as connection:
        assert connection.getpeername() == listener.getsockname()


def test_those_that_lose_are_closed(deaf: SocketAddress, listener: socket.socket) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        connect([deaf, place(listener)], WITHIN_SECONDS).close()
    assert warned == []


def test_families_take_turns_beginning_with_that_of_the_first() -> None:
    a, b, c = (V6, ("2001:db8::1", 25, 0, 0)), (V6, ("2001:db8::2", 25, 0, 0)), (V6, ("2001:db8::3", 25, 0, 0))
    x, y = (V4, ("192.0.2.1", 25)), (V4, ("192.0.2.2", 25))
    assert interleaved([a, b, c, x, y]) == [a, x, b, y, c]
    assert interleaved([x, a, b]) == [x, a, b]
    assert interleaved([x, y]) == [x, y]
