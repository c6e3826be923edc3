"""What the flows share: a relay for a whole module, which each test reroutes, and upstreams of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.rerouting import DEBUG, Rerouting
from tests.support.relay import Relay
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def sink() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def shared_rerouting(tmp_path_factory: pytest.TempPathFactory, sink: Upstream) -> Iterator[Rerouting]:
    with Relay(tmp_path_factory.mktemp("relay"), logging=DEBUG) as relay:
        yield Rerouting(relay, sink)


@pytest.fixture
def rerouting(shared_rerouting: Rerouting) -> Rerouting:
    """The module's relay, with nothing left of the test before."""
    shared_rerouting.settle()
    return shared_rerouting


@pytest.fixture
def first() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def second() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream
