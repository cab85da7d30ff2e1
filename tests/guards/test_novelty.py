"""How unlike honest rows a row is: nothing without a guard, one in a thousand counts in full."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.novelty import MOST_NATS, novelty
from guards.rarity import Tail


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1))
def test_whatever_a_guard_gives_the_novelty_is_a_number_from_0_to_1(rarities: list[float]) -> None:
    found = novelty(np.array(rarities))
    assert ((found >= 0) & (found <= 1)).all()


def test_a_row_that_no_guard_has_judged_is_not_new_and_one_in_a_thousand_is_entirely() -> None:
    rarities = np.array([math.nan, -math.inf, 0.0, 3.5, -math.log(0.0009), math.inf])
    assert novelty(rarities) == pytest.approx([0, 0, 0, 0.5, 1, 1])


def test_honest_rows_cost_a_seventh_on_average_whatever_the_score() -> None:
    rng = np.random.default_rng(0)
    for draw in (rng.normal, rng.lognormal):
        tail = Tail.fit(draw(size=20_000))
        assert novelty(tail.rarity(draw(size=20_000))).mean() == pytest.approx(1 / MOST_NATS, rel=0.03)
