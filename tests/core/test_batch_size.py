"""How many rows are decided together follows what models and batches take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from gateway.core.batch_size import FORGET_S, MOST_LANES, BatchSize

BUDGET_S = 0.1


def after(
    seconds: float, pass_s: Callable[[int], float], fixed_s: float = 0.0, size: BatchSize | None = None
) -> BatchSize:
    """A size after so many seconds of full batches. pass_s: of a model, by rows; fixed_s: of each batch."""
    size, now_s = size or BatchSize(128), 0.0
    while now_s < seconds:
        rows = size.rows
        alone_s = pass_s(rows)
        now_s += alone_s + fixed_s
        size.observe(rows, size.lanes * alone_s / BUDGET_S, alone_s + fixed_s, now_s)
    return size


@pytest.mark.parametrize("row_s", [0.0001, 0.0005, 0.002, 0.01, 0.04])
def test_passes_that_take_longer_for_more_rows_stay_within_their_budget(row_s: float) -> None:
    size = after(20.0, lambda rows: rows * row_s)
    assert size.lanes * size.rows * row_s < BUDGET_S


def test_a_model_that_takes_the_same_time_for_any_number_of_rows_gets_full_batches() -> None:
    assert after(20.0, lambda rows: 0.02).rows == 128


def test_a_model_that_takes_more_than_half_of_its_budget_for_any_row_is_asked_by_one_lane() -> None:
    size = after(20.0, lambda rows: 0.06)
    assert (size.lanes, size.rows) == (1, 128)


def test_the_second_lane_comes_back_where_passes_become_short_again() -> None:
    size = after(5.0, lambda rows: 0.06)
    assert size.lanes == 1
    assert after(20.0, lambda rows: 0.001, size=size).lanes == MOST_LANES


def test_a_batch_is_no_larger_than_is_worth_the_wait() -> None:
    """What a batch costs beside its rows is a tenth of what 16 rows cost: more of them save little."""
    assert after(FORGET_S / 2, lambda rows: rows * 0.0005, fixed_s=0.0008).rows <= 32


def test_one_long_pass_among_short_ones_changes_nothing() -> None:
    size = after(5.0, lambda rows: 0.01)
    before = size.rows, size.lanes
    size.observe(size.rows, 3.0, 0.3, 5.0)
    assert (size.rows, size.lanes) == before


def test_a_size_that_was_too_large_is_tried_again_after_a_while() -> None:
    size = after(5.0, lambda rows: rows * 0.01)
    small = size.rows
    assert small < 16
    assert after(3 * FORGET_S, lambda rows: 0.001, size=size).rows > small


def test_a_moment_in_which_every_pass_is_long_leaves_batches_small_for_a_moment_only() -> None:
    size = after(5.0, lambda rows: 0.001 + rows * 0.0001)
    assert size.rows == 128
    now_s = 5.0
    while size.rows >= 16:
        now_s += 0.1
        size.observe(size.rows, 1.5, 0.1, now_s)
    end_s = now_s + 2.0
    while now_s < end_s:
        pass_s = 0.001 + size.rows * 0.0001
        now_s += pass_s
        size.observe(size.rows, size.lanes * pass_s / BUDGET_S, pass_s, now_s)
    assert size.rows == 128


def test_a_size_that_stays_too_large_is_tried_more_and_more_rarely() -> None:
    size, now_s, tried_s = BatchSize(128), 0.0, list[float]()
    while now_s < 40.0:
        rows = size.rows
        if rows == 32 and (not tried_s or now_s - tried_s[-1] > 0.2):
            tried_s.append(now_s)
        pass_s = 0.001 if rows <= 16 else 0.12
        now_s += pass_s
        size.observe(rows, pass_s / BUDGET_S, pass_s, now_s)
    waits_s = [later - earlier for earlier, later in pairwise(tried_s)]
    assert waits_s[0] < 1.0
    assert all(later > 0.9 * earlier for earlier, later in pairwise(waits_s)), waits_s
    assert waits_s[-1] == pytest.approx(FORGET_S, rel=0.1)


def test_there_are_never_more_rows_than_the_policy_allows() -> None:
    size = after(20.0, lambda rows: 0.001)
    size.most = 5
    assert size.rows == 5


def test_requests_that_are_larger_than_the_smallest_size_share_batches_as_well() -> None:
    size, now_s = BatchSize(128), 0.0
    while now_s < 5.0:
        rows = max(32, size.rows // 32 * 32)
        now_s += 0.01
        size.observe(rows, 0.1, 0.01, now_s)
    assert size.rows == 128
