"""What an answer may tell, in bits: more disclosure costs more, refusals too, and repeats nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guards.price import End, Prices, label_bits, rounded_bits, top_bits, uncertainty, vector_bits

PRICES = Prices(base_bits=1, uncertainty_bits=8, novelty_bits=4, refusal_factor=2)
BAD = (math.nan, math.inf, -1.0)


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


def test_an_answer_costs_what_it_tells_a_refusal_more_and_a_repeat_nothing() -> None:
    admission = PRICES.at_admission(label_bits(8))
    assert admission == 4
    assert PRICES.in_the_end(admission, 0.5, 0.25, End.ANSWERED) == 4 + 4 + 1
    assert PRICES.in_the_end(admission, 0.5, 0.25, End.REFUSED) == 18
    assert PRICES.in_the_end(admission, 0.5, 0.25, End.REPEATED) == 0


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(End), st.floats(0, 100))
def test_no_row_costs_more_beyond_admission_than_is_stated(u: float, n: float, end: End, tier: float) -> None:
    admission = PRICES.at_admission(tier)
    assert PRICES.in_the_end(admission, u, n, end) - admission <= PRICES.most_beyond_admission(admission)


def test_what_is_no_number_is_no_price() -> None:
    for bad in BAD:
        for name in ("base_bits", "uncertainty_bits", "novelty_bits", "refusal_factor"):
            fields = {"base_bits": 1.0, "uncertainty_bits": 1.0, "novelty_bits": 1.0, name: bad}
            with pytest.raises(ValueError, match=f"price: {name} is"):
                Prices(**fields)
        with pytest.raises(ValueError, match="the tier has"):
            PRICES.at_admission(bad)
        for shares in ((bad, 0.0), (0.0, bad)):
            with pytest.raises(ValueError, match="expected 0 to 1"):
                PRICES.in_the_end(1.0, *shares, End.ANSWERED)
    with pytest.raises(ValueError, match="refusal_factor is 0"):
        Prices(1, 1, 1, 0.5)


def test_a_row_between_two_classes_is_uncertain_and_one_within_a_class_is_not() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.2, 0.7, 0.1], [1.0000001, 0.0, 0.0]], np.float32)
    assert uncertainty(rows) == pytest.approx([0.0, 1.0, 0.5, 0.0])
    assert uncertainty(np.array([[0.5], [0.9], [0.0]])) == pytest.approx([1.0, 0.2, 0.0])
