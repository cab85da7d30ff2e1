"""How unlike honest rows a row is: nothing without a guard, one in a thousand counts in full."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.novelty import MOST_NATS, novelty
from guards.rarity import Tail


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_whatever_a_guard_gives_the_novelty_is_a_number_from_0_to_1(rarity: float) -> None:
    assert 0 <= novelty(rarity) <= 1


def test_a_row_that_no_guard_has_judged_is_not_new_and_one_in_a_thousand_is_entirely() -> None:
    rarities = (math.nan, -math.inf, 0.0, 3.5, -math.log(0.0009), math.inf)
    assert list(map(novelty, rarities)) == pytest.approx([0, 0, 0, 0.5, 1, 1])


def test_honest_rows_cost_a_seventh_on_average_whatever_the_score() -> None:
    rng = np.random.default_rng(0)
    for draw in (rng.normal, rng.lognormal):
        tail = Tail.fit(draw(size=20_000))
        found = [novelty(one) for one in tail.rarity(draw(size=20_000)).tolist()]
        assert np.mean(found) == pytest.approx(1 / MOST_NATS, rel=0.03)
