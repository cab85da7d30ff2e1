"""What calibration keeps for a memory of queries, and the cuts that a start makes of it."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from guards import arrays
from guards.fingerprints import KEPT
from guards.near_cut import least_shared, near_cut
from guards.near_fit import MOST_ROWS, SEED, NearFit
from guards.query_rings import RING
from guards.query_sketch import Sketcher
from tests.support.query_rows import OTHER_SALT, SALT, letters, pictures


def test_the_cuts_are_those_of_the_rows_themselves_under_the_same_salt() -> None:
    fitted = NearFit.fit(pictures())
    found = fitted.cuts(SALT, 1024, 0.1, 0.05)
    kept = Sketcher(fitted.coarse, SALT).sketch(pictures())
    assert len(fitted.points) == len(pictures()), "no two of these pictures are equal"
    number = least_shared(kept, (RING, 1024), 0.05, seed=0)
    for own, held in ((found.own, RING), (found.any, 1024)):
        assert own == near_cut(kept, held, 0.05, 0.05, seed=0, least_shared=number)
    assert found.shared == number < KEPT
    assert 0 < found.honest_rate <= 0.1
    assert (found.cuts.own, found.cuts.any, found.cuts.shared) == (found.own.cut, found.any.cut, number)


def test_another_salt_has_cuts_of_its_own_that_hold_the_same_share() -> None:
    fitted = NearFit.fit(letters())
    for salt in (SALT, OTHER_SALT):
        found = fitted.cuts(salt, 256, 0.2, 0.05)
        assert found.own.share <= 0.1 and found.any.share <= 0.1
        assert found.any.retained == 256 and found.own.retained == RING


def test_what_is_packed_gives_the_same_cuts_when_it_is_read_again() -> None:
    fitted = NearFit.fit(pictures())
    again = arrays.unpack(NearFit, "queries", arrays.pack("queries", fitted))
    assert again.cuts(SALT, 1024, 0.1, 0.05) == fitted.cuts(SALT, 1024, 0.1, 0.05)
    assert {field.name for field in fields(NearFit)} == {"coarse", "points", "digits"}


def test_detail_is_dropped_from_what_is_kept() -> None:
    fitted = NearFit.fit(pictures())
    assert fitted.digits.max() <= 5 and fitted.digits.dtype == np.uint8
    assert NearFit.fit(letters()).digits.shape[1] == 0, "a table has no fingerprints"


def test_repetitions_and_rows_with_missing_values_are_left_out() -> None:
    rows = np.concatenate([letters()[:100], letters()[:50]])
    rows[:10, 0] = np.nan
    distinct = len(np.unique(NearFit.fit(letters()[:100]).coarse.levels(rows[10:]), axis=0))
    assert len(NearFit.fit(rows).points) == distinct


def test_no_more_than_the_stated_rows_are_kept() -> None:
    many = np.random.default_rng(0).standard_normal((MOST_ROWS + 50, 6)).astype(np.float32)
    assert len(NearFit.fit(many).points) == MOST_ROWS


def test_too_few_rows_are_refused_with_how_many_it_takes() -> None:
    with pytest.raises(ValueError, match=r"give \d+ rows, or retain fewer"):
        NearFit.fit(pictures()[:100]).cuts(SALT, 2**16, 0.05, 0.05)
    with pytest.raises(ValueError, match="needs 8 rows without missing values, not 2"):
        NearFit.fit(np.array([[1.0], [2.0], [np.nan]], np.float32))


def test_as_many_fingerprints_have_to_match_as_honest_pictures_do_not_share() -> None:
    """A print of the same logo on every picture: all of them share its windows."""
    rows = np.zeros((400, 1, 28, 28), np.float32)
    rows[:, :, :14] = np.random.default_rng(0).random((14, 28), np.float32)
    rows[:, :, 14:] = np.random.default_rng(1).random((400, 1, 14, 1), np.float32)
    found = NearFit.fit(rows).cuts(SALT, 128, 0.4, 0.05)
    assert found.shared > KEPT // 2 and found.honest_rate <= 0.4


def test_fingerprints_that_the_tested_rows_share_are_left_out() -> None:
    """No two of the rows that the number is chosen on are made from each other, and all tested ones are."""
    rows = np.array(pictures()[:800])
    order = np.random.default_rng(SEED).permutation(len(rows))
    copied = rows[order[:400]].copy()
    copied[:, :, 4:10, 10:16] = 1 - copied[:, :, 4:10, 10:16]
    rows[order[400:]] = copied
    fitted = NearFit.fit(rows)
    assert len(fitted.digits) == 800
    number = least_shared(fitted._sketches(SALT), (RING, 512), 0.15, seed=SEED)
    assert number < KEPT // 2
    with pytest.raises(ValueError, match="fingerprints alone match"):
        near_cut(fitted._sketches(SALT), 512, 0.15, 0.05, seed=SEED, least_shared=number)
    assert fitted.cuts(SALT, 512, 0.3, 0.05).shared == KEPT + 1
