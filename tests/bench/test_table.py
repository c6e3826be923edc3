"""The table of the bench says what was found, and judges it as it is wanted."""

from __future__ import annotations

import pytest

from bench.table import Gap, Row, Series, at_least, at_most, number, percentile, render, value_at_most


@pytest.mark.parametrize(
    ("value", "text"),
    [(1345.4, "1345"), (31.24, "31.2"), (0.2041, "0.204"), (3.0, "3"), (0, "0"), (99.96, "100"), (1000.0, "1000")],
)
def test_a_number_shows_three_digits_and_no_zeros_behind_the_point(value: float, text: str) -> None:
    assert number(value) == text


def test_the_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds() -> None:
    row = Row("rate", "msg/s", Series((400, 300, 900)), "Postfix", Series((100, 100, 150)), at_least(4))
    assert row.ratio == 4
    assert row.text == "| rate | 400 (300–900) msg/s | Postfix | 100 (100–150) msg/s | 4 (3–6) | ≥ 4 × | ok |"


def test_a_bound_from_above_is_missed_by_more_and_reached_by_as_much() -> None:
    peer = Series((10,))
    assert Row("p99", "ms", Series((10,)), "Postfix", peer, at_most(1)).verdict == "ok"
    assert Row("p99", "ms", Series((10.1,)), "Postfix", peer, at_most(1)).verdict == "missed"


def test_a_bound_on_the_value_takes_no_notice_of_the_ratio() -> None:
    row = Row("fsync", "", Series((0.3,)), "Postfix", Series((3,)), value_at_most(0.2))
    assert row.ratio == pytest.approx(0.1)
    assert row.verdict == "missed"


def test_a_row_without_a_bound_is_not_judged() -> None:
    assert Row("rate", "msg/s", Series((1,)), "nothing between", Series((2,))).verdict == ""


def test_a_figure_that_could_not_be_measured_keeps_its_line_in_the_table() -> None:
    table = render([Gap("tls", "the relay said\na | b"), Row("idle", "MiB", Series((33,)), wanted=value_at_most(45))])
    assert table.splitlines()[2:] == [
        "| tls | the relay said a / b | | | | | not measured |",
        "| idle | 33 MiB |  |  |  | ≤ 45 MiB | ok |",
    ]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(1, 301)]
    assert percentile(values, 50) == 150
    assert percentile(values, 99) == 297
    assert percentile([7.0], 99) == 7
