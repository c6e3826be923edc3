"""What the tests of signing share: keys, and a nameserver that publishes them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.signing.keyring import Keyring
from tests.support.nameserver import Nameserver

if find_spec("cryptography") is None:  # free-threaded 3.13 has no wheels: without keys there is nothing to sign with
    collect_ignore = ["test_keys.py", "test_places.py", "test_signature.py", "test_signer.py", "test_verifiers.py"]


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring.make(tmp_path_factory.mktemp("keyring"))


@pytest.fixture(scope="session")
def nameserver(keyring: Keyring) -> Iterator[Nameserver]:
    with Nameserver() as server:
        for name, text in keyring.records.items():
            server.add(name, "TXT", in_strings(text))
        yield server


def in_strings(text: str) -> str:
    """A TXT record's data as a zone file has it: strings of at most 255 bytes (RFC 1035 3.3.14)."""
    return " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))
