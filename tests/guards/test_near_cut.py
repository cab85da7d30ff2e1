"""The cut of near rows: fresh rows keep it, for the number of retained queries, or it is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.arrays import load
from guards.fingerprints import KEPT, LEAST_SHARED, Prints
from guards.near_cut import MOST_CUT, NearCut, least_shared, near_cut, rows_needed
from guards.near_pairs import EXACT, NEAR, Cuts
from guards.query_memory import QueryMemory
from guards.query_sketch import Sketches
from guards.selective import clopper_pearson_upper
from tests.support.query_rows import LETTERS, SALT, letter_sketcher, picture_sketcher, pictures


def certified(sketches: Sketches, retained: int, share: float, delta: float, *, seed: int) -> NearCut:
    return near_cut(sketches, retained, share, delta, seed=seed, least_shared=18)


def test_fresh_rows_keep_the_share_in_a_memory_that_is_full() -> None:
    """20,000 letters: the cut of 4,000 of them, then others against 1,024 retained ones."""
    x = load(LETTERS / "letters.npz")["x"].astype(np.float32)
    x = x[np.random.default_rng(0).permutation(len(x))]
    sketches = letter_sketcher().sketch(x)
    found = certified(sketches.take(np.arange(4000)), 1024, 0.05, 0.05, seed=0)
    assert found.held == 1024 and found.tested == 2976 and found.share <= 0.05
    memory = QueryMemory(Cuts(found.cut, -1, KEPT + 1), SALT, retained=2**14)
    insert, fresh = np.arange(4000, 5024), np.arange(6000, 9000)
    memory.insert(memory.rows(sketches.take(insert), ["a"] * 1024))
    matches = [
        memory.look_up(memory.rows(sketches.take(fresh[i : i + 1]), ["a"])).kinds[0] for i in range(3000)
    ]
    assert 0.02 < np.mean(np.array(matches) == NEAR) <= 0.05
    assert np.mean(np.array(matches) == EXACT) > 0


def test_the_bound_is_clopper_pearson_times_the_blocks() -> None:
    sketches = picture_sketcher().sketch(pictures())
    found = certified(sketches, 1024, 0.05, 0.05, seed=0)
    assert (found.held, found.tested, found.retained) == (500, 500, 1024)
    assert found.share == 3 * clopper_pearson_upper(found.matched, 500, 0.05)
    assert found.expected == 3 * found.matched / 500
    assert 5 <= found.cut <= 30


def test_the_more_are_retained_the_smaller_is_the_cut() -> None:
    sketches = picture_sketcher().sketch(pictures())
    cuts = [certified(sketches, n, 0.1, 0.05, seed=0).cut for n in (100, 500, 2000, 4000)]
    assert cuts == sorted(cuts, reverse=True) and cuts[0] > cuts[-1]


def test_a_smaller_share_never_has_a_larger_cut() -> None:
    sketches = picture_sketcher().sketch(pictures())
    cuts = [certified(sketches, 500, share, 0.05, seed=0).cut for share in (0.01, 0.02, 0.05, 0.2)]
    assert cuts == sorted(cuts)


def test_too_few_rows_are_refused_with_the_number_needed() -> None:
    sketches = picture_sketcher().sketch(pictures())
    needed = rows_needed(2**20, 0.05, 0.05)
    with pytest.raises(ValueError, match=f"1000 rows cannot certify a share of 0.05 .* give {needed} rows"):
        certified(sketches, 2**20, 0.05, 0.05, seed=0)
    with pytest.raises(ValueError, match="0 rows cannot certify"):
        certified(sketches.take(np.arange(0)), 100, 0.05, 0.05, seed=0)
    with pytest.raises(ValueError, match="share 0"):
        certified(sketches, 100, 0.0, 0.05, seed=0)


@given(st.integers(1, 10**6), st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([0.01, 0.05]))
def test_rows_needed_are_enough(retained: int, share: float, delta: float) -> None:
    n = rows_needed(retained, share, delta)
    held = min(n // 2, retained)
    assert -(-retained // held) * (1 - delta ** (1 / (n - held))) <= share


def test_repetitions_are_no_near_rows() -> None:
    one = picture_sketcher().sketch(np.repeat(pictures()[:1], 400, 0))
    found = certified(one, 100, 0.05, 0.05, seed=0)
    assert found.cut == MOST_CUT and found.matched == 0


def test_fingerprints_that_honest_rows_share_are_refused() -> None:
    some = picture_sketcher().sketch(pictures()[:400])
    alike = Sketches(
        some.bits, some.contents, Prints(some.prints.largest, np.repeat(some.prints.marks[:1], 400, 0))
    )
    with pytest.raises(ValueError, match="fingerprints alone match 200 of 200"):
        certified(alike, 200, 0.05, 0.05, seed=0)


def test_so_many_fingerprints_match_that_few_honest_rows_do_by_them_alone() -> None:
    sketches, share = picture_sketcher().sketch(pictures()), 0.1
    number = least_shared(sketches, (1024,), share, seed=0)
    assert LEAST_SHARED < number < 25
    none = near_cut(sketches, 1024, share, 0.05, seed=0, least_shared=KEPT + 1)
    found = near_cut(sketches, 1024, share, 0.05, seed=0, least_shared=number)
    assert found.cut >= none.cut - 3, "most of the share is left to distances"
    assert least_shared(sketches, (1024,), share / 4, seed=0) > number


def test_the_number_of_fingerprints_is_chosen_on_rows_that_certify_nothing() -> None:
    """Of both cuts: the rows that each of them tests may be anything, and the number stays the same."""
    sketches = picture_sketcher().sketch(pictures())
    number = least_shared(sketches, (300, 2000), 0.2, seed=0)
    order = np.random.default_rng(0).permutation(len(sketches))
    changed = sketches.prints.marks.copy()
    changed[order[300:]] = changed[order[300]]
    other = Sketches(sketches.bits, sketches.contents, Prints(sketches.prints.largest, changed))
    assert least_shared(other, (300, 2000), 0.2, seed=0) == number
    assert least_shared(other, (2000,), 0.2, seed=0) > 2 * number
