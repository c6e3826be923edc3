"""A kept connection is in one thread's hands at a time, and every one is closed at last."""

from __future__ import annotations

import socket
import threading

from mailer.transport.client import Conversation
from mailer.transport.pool import Pool
from tests.stress.together import THREADS, many

ROUNDS = 300
LIMIT = 5


def test_no_connection_is_claimed_twice_and_none_is_forgotten() -> None:
    pool = Pool(LIMIT)
    lock = threading.Lock()  # guards the next two
    in_hand: set[Conversation] = set()
    made: dict[Conversation, socket.socket] = {}

    def use(number: int) -> None:
        for round_number in range(ROUNDS):
            claimed, conversation = pool.claim()
            if not claimed:
                assert conversation is None
                continue
            if conversation is None:
                conversation = Conversation("stress.test", 5.0)
                conversation.sock, peer = socket.socketpair()
                with lock:
                    made[conversation] = peer
            with lock:
                assert conversation not in in_hand, "in two hands"
                in_hand.add(conversation)
                assert len(in_hand) <= LIMIT
            if round_number % 50 == number:
                conversation.close()
            with lock:
                in_hand.remove(conversation)
            pool.end(conversation, float(round_number))
            if number == 0 and round_number % 20 == 0:
                pool.flush()

    many(use)
    assert pool.connections == sum(conversation.sock is not None for conversation in made)
    pool.close()
    assert pool.connections == 0
    assert [conversation for conversation in made if conversation.sock is not None] == []
    assert pool.claim()[0]
    for peer in made.values():
        peer.close()


def test_claims_and_ends_balance() -> None:
    pool = Pool(0)

    def use(_: int) -> None:
        for _ in range(ROUNDS * 5):
            claimed, conversation = pool.claim()
            assert claimed
            pool.end(conversation or Conversation("stress.test", 5.0), 0.0)

    many(use)
    assert pool.connections == 0


def test_all_threads_together_never_hold_more_than_the_limit() -> None:
    pool = Pool(LIMIT)
    claims = [0] * THREADS
    together = threading.Barrier(THREADS)

    def use(number: int) -> None:
        for _ in range(ROUNDS):
            together.wait()
            claimed, conversation = pool.claim()
            claims[number] += claimed
            together.wait()
            if claimed:
                pool.end(conversation or Conversation("stress.test", 5.0), 0.0)

    many(use)
    assert sum(claims) == LIMIT * ROUNDS
