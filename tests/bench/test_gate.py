"""The regression gate: what it lets pass, and what it is held to."""

from __future__ import annotations

import math

from bench.gate import COMMITTED, committed_ratio, holds


def test_a_third_less_passes_and_half_does_not() -> None:
    assert holds(0.61, 0.9)
    assert holds(2.0, 0.9)
    assert not holds(0.45, 0.9)


def test_what_could_not_be_measured_is_a_regression() -> None:
    assert not holds(math.nan, 0.9)


def test_the_committed_ratio_is_there() -> None:
    assert 0 < committed_ratio(COMMITTED) < 10
