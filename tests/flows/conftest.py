"""What the flows share: a relay for a whole module, which each test reroutes, and upstreams of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.rerouting import Rerouting
from tests.support.relay import Relay
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def rerouting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rerouting]:
    with Relay(tmp_path_factory.mktemp("relay")) as relay:
        yield Rerouting(relay)


@pytest.fixture
def first() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def second() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream
