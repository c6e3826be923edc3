"""Signing from many threads while keys are read anew: each signature is that of its own message, with a key that was there."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mailer.mail.content import MemoryContent
from mailer.signing.hands import Hands
from tests.stress.together import THREADS, together

pytest.importorskip("cryptography", reason="no wheels for free-threaded 3.13")
from mailer.signing.signer import Signers
from tests.signing.keyring import Keyring
from tests.signing.verifiers import dkimpy_passes

MESSAGES = 25
"""Of each thread; dkimpy checks them in Python afterwards."""


def test_every_message_has_its_own_signature_while_keys_are_swapped(tmp_path: Path) -> None:
    keyring = Keyring.make(tmp_path)
    one, other = replace(keyring.config, keys=()), replace(keyring.config, domain="")
    allowed = os.sched_getaffinity(0)
    signers = Signers(one, hands=Hands({*allowed, max(allowed) + 1}))
    signed: dict[str, bytes] = {}

    def sign(thread: int) -> None:
        for number in range(MESSAGES):
            name = f"{thread}-{number}"
            content = MemoryContent(f"From: a@other.example\r\nSubject: {name}\r\n\r\nbody of {name}\r\n".encode())
            signed[name] = b"".join(signers.sign(content).chunks())

    def configure() -> None:
        for _ in range(20):
            signers.configure(other)
            signers.configure(one)

    together([configure, *(partial(sign, thread) for thread in range(THREADS))])
    signers.close()
    for name, data in signed.items():
        (tmp_path / name).write_bytes(data)
    passed = dkimpy_passes([tmp_path / name for name in signed], keyring.records)
    assert len(passed) == THREADS * MESSAGES
    assert [path.name for path, selectors in passed.items() if selectors not in ({"mail"}, {"shop"})] == []
