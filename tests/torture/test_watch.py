"""Growth: a leak is found through the noise of a load, and noise alone is not taken for one."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from tests.torture.watch import Sample, Watch, judge_growth, sample


def run_of(memory_slope: float = 0.0, thread_slope: float = 0.0, file_slope: float = 0.0) -> list[Sample]:
    """200 samples of a noisy load: 60 MiB at rest and up to 40 more in bursts, and slopes in units over the whole run."""
    chance, samples = random.Random(1), []
    for number in range(200):
        share = number / 200
        burst = chance.choice((0, 0, 0, 10, 40)) + chance.random() * 3
        samples.append(Sample(60 + burst + memory_slope * share, 30 + thread_slope * share, 40 + burst + file_slope * share))
    return samples


def grown(samples: list[Sample]) -> list[str]:
    return [growth.name for growth in judge_growth(samples) if growth.has_grown]


def test_noise_is_no_growth() -> None:
    assert grown(run_of()) == []


def test_leak_of_memory_is_growth() -> None:
    assert grown(run_of(memory_slope=40)) == ["memory_mib"]


def test_leak_of_threads_is_growth() -> None:
    assert grown(run_of(thread_slope=15)) == ["threads"]


def test_leak_of_descriptors_is_growth() -> None:
    assert grown(run_of(file_slope=40)) == ["files"]


def test_what_is_used_at_first_and_then_kept_is_no_growth() -> None:
    samples = run_of()
    assert grown([Sample(20, 5, 10)] * 30 + samples) == []


def test_few_samples_are_refused_rather_than_judged() -> None:
    with pytest.raises(ValueError, match="too few"):
        judge_growth(run_of()[:10])


def test_sample_sees_threads_and_descriptors_of_a_process() -> None:
    before = sample([os.getpid()])
    release, pipe = threading.Event(), os.pipe()
    thread = threading.Thread(target=release.wait)
    thread.start()
    after = sample([os.getpid()])
    release.set()
    thread.join()
    for descriptor in pipe:
        os.close(descriptor)
    assert before is not None
    assert after is not None
    assert after.threads == before.threads + 1
    assert after.files == before.files + 2
    assert after.memory_mib > 1


def test_process_that_is_gone_has_no_sample() -> None:
    assert sample([os.getpid(), 2**22 + 1]) is None


def test_sample_of_several_processes_is_their_sum() -> None:
    one, two = sample([os.getpid()]), sample([os.getpid(), os.getpid()])
    assert one is not None
    assert two is not None
    assert two.threads == 2 * one.threads


def test_watch_samples_until_it_is_left(tmp_path: Path) -> None:
    seen = threading.Event()

    def pids() -> list[int]:
        seen.set()
        return [os.getpid()]

    with Watch(pids, 0.001) as watch:
        assert seen.wait(10)
    assert len(watch.samples) >= 1
    watch.write(tmp_path / "samples.csv")
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == 1 + len(watch.samples)
