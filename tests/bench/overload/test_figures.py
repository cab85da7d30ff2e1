"""Figures, targets and tables from counts that are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from bench.overload.figures import (
    GeneratorFigures,
    GreedyFigures,
    OverloadFigures,
    ProbeFigures,
)
from bench.overload.histogram import Histogram
from bench.overload.load_result import ClassResult, LoadResult
from bench.overload.summary import probe_figures, recovery_s, share_in_time, shares
from bench.overload.tables import greedy_table, line, overload_table
from bench.overload.targets import missed

ENDS = ("answered", "served", "degraded", "deferred", "unsent")
PHASES = (0.1, 0.2, 0.5)
EMPTY = Histogram({}, 32, 0.0)
GENERATOR = GeneratorFigures(0.1, 0.2, 0.3)
GOOD = OverloadFigures(
    "here", 1, 5.0, 0, 1000.0, 5000.0, 900.0, 100.0, 400.0, {"served": 0.18, "unavailable": 0.82},
    1.0, {"served": 1.0}, 300.0, ProbeFigures(50.0, 0, {"answered": 200}), 0.3, GENERATOR,
)  # fmt: skip
POLITE = GreedyFigures(
    "here", 1, 0, 1000.0, 1.0, 1.0, 20.0, 40.0, {"rate_limited": 0.9}, ProbeFigures(50.0, 0, {}), GENERATOR
)


def result(*buckets: dict[str, int | tuple[int, int]], name: str = "one") -> LoadResult:
    """One class with these counts in each bucket: in time, or in time and late."""
    counts = np.zeros((len(buckets), len(ENDS), 2), np.int64)
    for at, bucket in enumerate(buckets):
        for end, count in bucket.items():
            counts[at, ENDS.index(end)] = count if isinstance(count, tuple) else (count, 0)
    held = Histogram({320: 10}, 32, 0.0009)
    one = ClassResult(counts, (EMPTY,) * 3, (EMPTY, held, EMPTY))
    return LoadResult(PHASES, 0.1, ENDS, {name: one}, (0.1,) * 3, (EMPTY,) * 3)


def test_a_percentile_is_the_upper_end_of_its_bin_and_at_most_the_longest_latency() -> None:
    one = Histogram({0: 50, 32: 49, 320: 1}, 32, 0.001)
    assert one.count == 100
    assert one.percentile_s(0.5) == pytest.approx(1e-6)
    assert one.percentile_s(0.99) == pytest.approx(2e-6)
    assert one.percentile_s(1.0) == 0.001
    assert math.isnan(EMPTY.percentile_s(0.5))
    assert Histogram.sum([one, one]) == Histogram({0: 100, 32: 98, 320: 2}, 32, 0.001)


def test_a_share_in_time_is_of_what_was_scheduled_and_late_replies_do_not_count() -> None:
    found = result({}, {"served": (6, 1), "degraded": 2, "unsent": 1}, {"answered": 5, "deferred": 5})
    assert share_in_time(found, ["one"], 1) == 13 / 20
    assert shares(found, ["one"], 1) == {
        "served": 0.3, "degraded": 0.1, "answered": 0.25, "deferred": 0.25, "unsent": 0.05, "late": 0.05
    }  # fmt: skip
    assert math.isnan(share_in_time(found, ["one"], 0))


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ([{"served": 9, "unsent": 1}] * 5, 0.0),
        ([{"served": 8, "unsent": 2}, *[{"served": 9}] * 4], 0.1),
        ([{"served": 9}, {"served": (8, 2)}, {}, {"served": 9}, {"served": 9}], 0.2),
        ([{"served": 9}] * 4 + [{"unsent": 1}], None),
    ],
)
def test_recovery_lasts_until_the_last_tenth_of_a_second_below_normal(
    buckets: list[dict[str, int | tuple[int, int]]], expected: float | None
) -> None:
    found = result({}, {}, {}, *buckets)
    assert recovery_s(found, ["one"]) == (None if expected is None else pytest.approx(expected))


def test_probes_count_in_every_phase_and_one_that_is_not_answered_has_failed() -> None:
    found = result({"answered": 3}, {"unsent": 1}, {"answered": (1, 1)}, name="probe")
    probe = probe_figures(found)
    assert probe is not None
    assert (probe.failed, probe.ends) == (1, {"answered": 5, "unsent": 1})
    assert probe.most_ms == pytest.approx(0.9)
    assert probe_figures(result({})) is None


@pytest.mark.parametrize(
    ("one", "what"),
    [
        (replace(GOOD, goodput=799.0), "goodput is 0.80 of the capacity"),
        (replace(GOOD, times=2.0, goodput=899.0), "less than 0.90"),
        (replace(GOOD, capacity=0.0), "goodput is nan of the capacity"),
        (replace(GOOD, answered_p99_ms=501.0), "after the deadline"),
        (replace(GOOD, answered_p99_ms=math.nan), "after the deadline"),
        (replace(GOOD, highest_in_time=0.998), "99.80% of the highest priority"),
        (replace(GOOD, recovery_s=1.1), "1.1 s to be back to normal"),
        (replace(GOOD, recovery_s=None), "the whole recovery"),
        (replace(GOOD, probe=ProbeFigures(101.0, 0, {})), "took 101 ms"),
        (replace(GOOD, probe=ProbeFigures(5.0, 2, {"unsent": 2})), "2 health probes failed: 2 unsent"),
        (replace(POLITE, answered=0.998), "99.80% of the polite caller's"),
        (replace(POLITE, p99_ms=41.0), "2.0 times that of before"),
        (replace(POLITE, p99_ms=math.nan), "nan times"),
    ],
)
def test_a_missed_target_is_told_with_its_figure(one: OverloadFigures | GreedyFigures, what: str) -> None:
    (found,) = missed(one, 0.5)
    assert what in found


@pytest.mark.parametrize("one", [GOOD, replace(GOOD, times=1.0, goodput=1.0, probe=None), POLITE])
def test_what_keeps_its_targets_misses_none(one: OverloadFigures | GreedyFigures) -> None:
    assert missed(one, 0.5) == []


def test_tables_and_lines_hold_the_figures() -> None:
    console = Console(width=200, record=True)
    console.print(overload_table([GOOD, replace(GOOD, probe=None, recovery_s=None)]), greedy_table([POLITE]))
    text = console.export_text()
    assert "0.90" in text and "82.0% unavailable" in text and "not" in text and "none" in text
    assert "here, 1 rows, 5 times 1000 requests/s: goodput 0.90" in line(GOOD)
    assert "p99 2.00 times" in line(POLITE)
