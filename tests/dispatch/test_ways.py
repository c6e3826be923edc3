"""What the schedule is told about the ways of this moment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mailer.config.schema import Config, ProviderConfig
from mailer.dispatch.round import Rules
from mailer.dispatch.ways import Ways
from mailer.events import Hub
from mailer.routing import LANE_SEPARATOR
from mailer.transport.local import LocalFiles
from mailer.transport.provider import Provider
from mailer.transport.providers import ProviderSet, Surroundings
from mailer.window import Windows

RULES = Rules(3, 3, 1.0, 60.0, 0.0, True, lambda: 0.0)
NOW = 1_700_000_000.0


def provider(name: str, **settings: object) -> ProviderConfig:
    return ProviderConfig(**{"name": name, "host": "127.0.0.1", "port": 25, **settings})  # type: ignore[arg-type]  # any of its fields


def ways_over(folder: Path, *providers: ProviderConfig) -> tuple[Ways, ProviderSet]:
    config = Config(forward_providers=providers)
    windows = Windows(lambda _name: ())
    provider_set = ProviderSet(config, windows, Hub(), Surroundings(clock=time.time))
    return Ways(config, provider_set, LocalFiles(folder), RULES), provider_set


def spend_quota(provider: Provider | None) -> None:
    assert provider is not None
    assert provider.admit(1, NOW).granted == 1


LANE = LANE_SEPARATOR.join(["a", "b"])


def test_messages_of_a_lane_are_tried_at_its_first_open_way(tmp_path: Path) -> None:
    ways, providers = ways_over(tmp_path, provider("b", priority=1, max_per_hour=1), provider("a", priority=2))
    assert ways.first_ways(LANE, NOW) == ["b"]
    spend_quota(providers.get("b"))
    assert ways.first_ways(LANE, NOW) == ["a"]


@pytest.mark.parametrize("setting", [{"weight": 3}, {"domains": ("example.org",)}])
def test_messages_of_a_lane_may_be_tried_at_any_open_way_where_they_differ(tmp_path: Path, setting: dict[str, object]) -> None:
    ways, _ = ways_over(tmp_path, provider("b", **setting), provider("a", priority=1))
    assert ways.first_ways(LANE, NOW) == ["b", "a"]


def test_way_that_is_no_longer_configured_counts_as_open(tmp_path: Path) -> None:
    ways, _ = ways_over(tmp_path, provider("a"))
    assert ways.first_ways("gone", NOW) == ["gone"]


def test_lane_without_a_way_has_its_own_place_in_the_queue(tmp_path: Path) -> None:
    ways, _ = ways_over(tmp_path, provider("a", domains=("example.org",)))
    assert ways.first_ways("", NOW) == [""]


def test_lane_that_has_closed_since_it_was_looked_at_still_has_a_way(tmp_path: Path) -> None:
    ways, providers = ways_over(tmp_path, provider("a", max_per_hour=1))
    spend_quota(providers.get("a"))
    assert ways.first_ways("a", NOW) == ["a"]
