"""``kill -9`` in mid-load: what was answered 250 arrives, whole and under its own id, and hardly anything twice (spec 4)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.flows.parking import counts, in_failed
from tests.support.load import Load
from tests.support.relay import FAST_RETRIES, Relay, eventually
from tests.support.upstream import Upstream
from tests.support.upstream_script import Said

WORKERS = 3
IN_DOUBT_A_CRASH = 4 * WORKERS


def crash_often(load: Load, crashes: int, moments: random.Random) -> None:
    for _ in range(crashes):
        load.wait_for(moments.randint(1, 120))
        load.crash()
    load.wait_for(50)


def is_idle(relay: Relay) -> bool:
    """Neither queued nor parked, by the spool's own count: that of the files may be a second old, and leaves out a file
    that is not shown yet."""
    return counts(relay)[1:] == (0, 0) and in_failed(relay) == []


def torture(folder: Path, crashes: int) -> int:
    """Crashes under load while the upstream takes everything. Returns how many messages came."""
    with Upstream() as upstream, Relay(folder, [upstream], workerCount=WORKERS) as relay:
        with Load(relay) as load:
            crash_often(load, crashes, random.Random(1))
        eventually(lambda: is_idle(relay), "an empty spool")
        arrived = load.check(upstream.messages, crashes * IN_DOUBT_A_CRASH)
        assert counts(relay) == (arrived, 0, 0)
        assert relay.terminate() == 0
    return arrived


def torture_with_deferrals(folder: Path, crashes: int) -> int:
    """The same while the upstream defers every fifth message, so that the spool and ``emails/failed`` hand over."""
    moods = random.Random(2)

    def mood(_: str) -> Said | None:
        return "451 4.3.0 busy" if moods.random() < 0.2 else None

    retry = {**FAST_RETRIES, "attemptsPerProvider": 1, "failedRetryInterval": 1}
    with Upstream() as upstream, Relay(folder, [upstream], workerCount=WORKERS, retry=retry) as relay:
        upstream.on("dot", mood)
        with Load(relay) as load:
            crash_often(load, crashes, random.Random(3))
        upstream.on("dot")
        eventually(lambda: relay.http("/admin/retry-failed", "POST")[0] == 200 and is_idle(relay), "an empty spool")
        arrived = load.check(upstream.messages, crashes * IN_DOUBT_A_CRASH)
        assert counts(relay) == (arrived, 0, 0)
        assert relay.files("quarantine") == relay.files("dead") == []
        assert list((relay.data / "spool" / "content").iterdir()) == []
        assert "removed by hand" not in relay.output
        assert relay.terminate() == 0
    return arrived


def test_crashes_in_mid_load_lose_nothing_and_mix_up_nothing(tmp_path: Path) -> None:
    assert torture(tmp_path, 5) > 0


def test_crashes_while_messages_are_parked_and_retried_lose_nothing_and_mix_up_nothing(tmp_path: Path) -> None:
    assert torture_with_deferrals(tmp_path, 5) > 0


@pytest.mark.slow
def test_many_crashes_in_mid_load_lose_nothing_and_mix_up_nothing(tmp_path: Path) -> None:
    assert torture(tmp_path / "a", 30) > 0
    assert torture_with_deferrals(tmp_path / "b", 30) > 0
