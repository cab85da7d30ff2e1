"""Secrets of a salt: the same for the same salt and purpose, unrelated otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from guards.salt import near_normal, words
from tests.support.query_rows import OTHER_SALT, SALT


def test_the_same_salt_gives_the_same_words_whatever_the_version_of_numpy() -> None:
    assert words(SALT, "a", 4).tolist() == words(SALT, "a", 9).tolist()[:4]
    assert words(SALT, "a", 1).tolist() == [7536996713489882445]


def test_salts_and_purposes_give_unrelated_words() -> None:
    several = [words(salt, purpose, 100) for salt in (SALT, OTHER_SALT) for purpose in ("a", "b")]
    assert len(np.unique(np.concatenate(several))) == 400


def test_nearly_normal_numbers_are_whole_small_and_centred() -> None:
    drawn = near_normal(SALT, "a", 100_000)
    assert (drawn == np.rint(drawn)).all() and np.abs(drawn).max() <= 64
    assert abs(drawn.mean() + 0.5) < 0.3 and 18 < drawn.std() < 19
    assert (np.abs(drawn) < 18.5).mean() == pytest.approx(0.683, abs=0.02)


def test_a_short_salt_is_refused() -> None:
    with pytest.raises(ValueError, match="salt: 15 bytes, needs at least 16"):
        words(bytes(15), "a", 1)
