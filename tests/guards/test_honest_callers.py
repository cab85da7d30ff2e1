"""Simulated honest callers: each with its own rows, and the price that the budget of each has to hold."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from guards.honest_callers import MOST_AT_ONCE, WINDOW, needed, needed_by, windows

CLASSES = np.repeat(np.arange(5), 200)
CALLERS = 400
Costs = NDArray[np.float64]
EVEN = np.random.default_rng(5).exponential(size=len(CLASSES))
RARE = np.where(np.random.default_rng(6).random(len(CLASSES)) < 0.03, 30.0, 1.0)


def draw(rows: int, seed: int = 0, classes: np.ndarray = CLASSES) -> list[np.ndarray]:
    return list(windows(classes, CALLERS, rows, np.random.default_rng(seed)))


def test_a_caller_sends_its_rows_at_once_and_three_times_as_many_after() -> None:
    assert {len(rows) for rows in draw(30)} == {WINDOW * 30}
    assert len(draw(50 * MOST_AT_ONCE)[0]) == WINDOW * MOST_AT_ONCE, "and of very many a part"


def test_callers_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    one, again, other = draw(10), draw(10), draw(10, seed=1)
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_callers_differ_by_their_classes_and_together_send_every_class_as_often_as_the_rows() -> None:
    sent = np.stack([np.bincount(CLASSES[rows], minlength=5) / len(rows) for rows in draw(50)])
    assert (sent.max(axis=1) > 0.95).mean() > 0.1, "some send one class alone"
    assert (sent.max(axis=1) < 0.5).mean() > 0.05, "and others all of them"
    assert sent.mean(axis=0) == pytest.approx([0.2] * 5, abs=0.06)


def test_rows_without_classes_still_make_callers_that_differ() -> None:
    costs, alike = np.random.default_rng(3).exponential(size=100), np.zeros(100, np.int64)
    found = needed(costs, alike, CALLERS, 1000, np.random.default_rng(0))
    assert found.std() > 0.05, "more than a mean of a thousand rows varies by itself"


@pytest.mark.parametrize(("costs", "burst"), [(EVEN, 20), (RARE, 5)], ids=["even", "a few dear rows"])
def test_a_budget_that_holds_what_a_caller_needs_refuses_no_row_of_it_and_a_smaller_one_does(
    costs: Costs, burst: int
) -> None:
    expected, late, refusing = float(costs.mean()), 0, 0
    found = needed(costs, CLASSES, CALLERS, burst, np.random.default_rng(7))
    for least, rows in zip(found, windows(CLASSES, CALLERS, burst, np.random.default_rng(7)), strict=True):
        sent = costs[rows]
        ends = range(0, burst + 1, 5)
        assert not any(refuses(sent, burst, least * (1 + 1e-9), expected, ended) for ended in ends)
        refusing += any(refuses(sent, burst, 0.9 * least, expected, ended) for ended in ends)
        late += least > needed_by(sent[: burst + 1], burst, expected) * (1 + 1e-9)
    assert refusing > 0.6 * CALLERS
    assert late > 0, "what decides is not the burst alone"


def refuses(costs: Costs, burst: int, allowance: float, expected: float, ended: int) -> bool:
    """Whether a bucket refuses a row: a burst at once, and then one row at a time at the rate.

    ended: the rows of the burst that end before the next one is sent; the others end after all of it.
    """
    full = left = allowance * burst
    waiting = 0.0
    for k, cost in enumerate(costs):
        left = min(left + (allowance if k >= burst else 0.0), full)
        if left < expected - 1e-9:
            return True
        left -= expected
        if ended <= k < burst:
            waiting += cost - expected
        else:
            left = min(left - (cost - expected), full)
        if k == burst - 1:
            left = min(left - waiting, full)
    return False
