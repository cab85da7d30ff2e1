"""What an answer may tell, in bits: more disclosure costs more, refusals too, and repeats nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.price import Prices, Told, label_bits, rounded_bits, top_bits, uncertainty, vector_bits

PRICES = Prices(base_bits=1, uncertainty_bits=8, novelty_bits=4, refusal_factor=2)
BAD = (math.nan, math.inf, -1.0)
SHARES = st.floats(0, 1)
ANSWERED = st.builds(lambda u, n: Told(1, 1, 0, u, n, 0.0), SHARES, SHARES)
REFUSED = st.builds(lambda n: Told(1, 0, 1, 0.0, 0.0, n), SHARES)
ONE_ROW = ANSWERED | REFUSED | st.just(Told(1, 0, 0, 0.0, 0.0, 0.0))
"""One row: answered, refused by a guard, or otherwise."""


def test_the_bits_of_ten_classes_by_hand() -> None:
    assert label_bits(10) == pytest.approx(3.3219, abs=1e-4)
    assert top_bits(10, 3) == pytest.approx(math.log2(120) + 3 * 24)
    assert rounded_bits(10, 2) == pytest.approx(math.log2(math.comb(109, 9)))
    assert rounded_bits(2, 2) == pytest.approx(math.log2(101))
    assert vector_bits(10) == 216
    assert label_bits(1) == vector_bits(1) == rounded_bits(1, 2) == 0


@given(st.integers(2, 1000), st.data())
def test_a_tier_that_shows_more_costs_more(classes: int, data: st.DataObject) -> None:
    shown = data.draw(st.integers(1, min(classes, 20)))
    digits = data.draw(st.integers(1, 6))
    assert label_bits(classes) < top_bits(classes, 1) <= top_bits(classes, shown) + 1e-9
    assert top_bits(classes, shown) <= vector_bits(classes)
    assert 0 < rounded_bits(classes, digits) <= rounded_bits(classes, digits + 1) <= vector_bits(classes)


def test_what_cannot_be_shown_has_no_price() -> None:
    for classes, shown in ((10, 0), (10, 11), (0, 0)):
        with pytest.raises(ValueError, match="cannot be shown"):
            top_bits(classes, shown)
    for bits in (label_bits, vector_bits, lambda classes: rounded_bits(classes, 2)):
        with pytest.raises(ValueError, match="classes is 0"):
            bits(0)


def test_an_answer_costs_what_it_tells_and_a_refusal_more() -> None:
    admission = PRICES.at_admission(label_bits(8))
    assert admission == 4
    assert PRICES.in_the_end(admission, Told(1, 1, 0, 0.5, 0.25, 0.0)) == 4 + 4 + 1
    assert PRICES.in_the_end(admission, Told(1, 0, 1, 0.0, 0.0, 0.25)) == 2 * (4 + 1)
    assert PRICES.in_the_end(admission, Told(1, 0, 0, 0.0, 0.25, 0.0)) == 4 + 1
    assert PRICES.in_the_end(admission, Told(0, 0, 0, 0.0, 0.0, 0.0)) == 0


def test_weights_of_the_price_at_admission_cost_the_same_share_of_it_in_every_tier() -> None:
    prices = Prices(1, 2, 3, 2, of_admission=True)
    told = Told(3, 1, 1, 0.5, 0.25, 0.75)
    assert prices.in_the_end(10, told) == 10 * (2 + 1 + 0.75 + 2 * (1 + 2.25))
    assert prices.in_the_end(700, told) == pytest.approx(70 * prices.in_the_end(10, told))


@given(st.lists(ONE_ROW, min_size=1, max_size=9), st.floats(0, 100), st.booleans())
def test_rows_cost_together_what_they_cost_one_by_one(
    rows: list[Told], tier: float, of_admission: bool
) -> None:
    prices = Prices(1, 8, 4, 2, of_admission)
    admission = prices.at_admission(tier)
    together = Told(*(min(sum(column), len(rows)) for column in zip(*rows, strict=True)))
    apart = math.fsum(prices.in_the_end(admission, row) for row in rows)
    assert prices.in_the_end(admission, together) == pytest.approx(apart)


@given(ONE_ROW, st.floats(0, 100), st.booleans())
def test_no_row_costs_more_beyond_admission_than_is_stated(
    row: Told, tier: float, of_admission: bool
) -> None:
    prices = Prices(1, 8, 4, 2, of_admission)
    admission = prices.at_admission(tier)
    most = prices.most_beyond_admission(admission)
    assert prices.in_the_end(admission, row) - admission <= most * (1 + 1e-12)


def test_what_is_no_number_is_no_price() -> None:
    for bad in BAD:
        for name in ("base_bits", "uncertainty_bits", "novelty_bits", "refusal_factor"):
            fields: dict[str, Any] = {"base_bits": 1, "uncertainty_bits": 1, "novelty_bits": 1, name: bad}
            with pytest.raises(ValueError, match=f"price: {name} is"):
                Prices(**fields)
        with pytest.raises(ValueError, match="the tier has"):
            PRICES.at_admission(bad)
        for told in (
            Told(1, 1, 0, bad, 0.0, 0.0),
            Told(1, 1, 0, 0.0, bad, 0.0),
            Told(1, 0, 1, 0.0, 0.0, bad),
        ):
            with pytest.raises(ValueError, match="expected counts"):
                PRICES.in_the_end(1.0, told)
    with pytest.raises(ValueError, match="refusal_factor is 0"):
        Prices(1, 1, 1, 0.5)


def test_a_row_between_two_classes_is_uncertain_and_one_within_a_class_is_not() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.2, 0.7, 0.1], [1.0000001, 0.0, 0.0]], np.float32)
    assert uncertainty(rows) == pytest.approx([0.0, 1.0, 0.5, 0.0])
    assert uncertainty(np.array([[0.5], [0.9], [0.0]])) == pytest.approx([1.0, 0.2, 0.0])
