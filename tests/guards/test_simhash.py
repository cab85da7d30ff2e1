"""SimHash: near rows have near bits, others do not, and the salt decides which bits."""

from __future__ import annotations

import numpy as np
import pytest

from guards.coarse import Coarse
from guards.simhash import SimHash, hamming
from tests.support.query_rows import OTHER_SALT, SALT, diamonds, jpeg, letters, noisy, pictures

FITTED = SimHash(Coarse.fit(pictures()), SALT)
BITS = FITTED.sketch(pictures())
CUT = 14


def test_a_jpeg_of_the_same_picture_matches() -> None:
    apart = hamming(BITS, FITTED.sketch(jpeg(pictures())))
    assert (apart <= CUT).mean() > 0.95
    assert (apart > 0).mean() > 0.5


def test_noise_matches_and_the_distance_grows_with_it() -> None:
    medians = [np.median(hamming(BITS, FITTED.sketch(noisy(pictures(), eps)))) for eps in (0.02, 0.1, 0.3)]
    assert medians[0] <= 4
    assert medians == sorted(medians)


def test_different_pictures_differ_in_a_third_of_the_bits() -> None:
    apart = hamming(BITS[:500], BITS[500:])
    assert (apart <= CUT).mean() == 0
    assert 60 < np.median(apart) < 128


def test_every_bit_is_set_in_about_half_of_the_rows() -> None:
    share = np.unpackbits(BITS.view(np.uint8), axis=1).mean(0)
    assert 0.45 < share.mean() < 0.55
    assert (np.abs(share - 0.5) < 0.4).mean() > 0.9


def test_another_salt_gives_unrelated_bits() -> None:
    other = SimHash(FITTED.coarse, OTHER_SALT).sketch(pictures())
    agree = np.unpackbits((~(BITS ^ other)).view(np.uint8), axis=1).mean()
    assert agree == pytest.approx(0.5, abs=0.05)
    assert "salt" not in repr(FITTED)


def test_a_change_that_hides_from_one_salt_is_seen_by_another() -> None:
    """Random changes of a row that flip the fewest bits under one salt are usual ones under another."""
    start = pictures()[:1]
    changed = np.concatenate([noisy(start, 0.2, seed) for seed in range(300)])
    here = hamming(FITTED.sketch(start), FITTED.sketch(changed))
    other = SimHash(FITTED.coarse, OTHER_SALT)
    there = hamming(other.sketch(start), other.sketch(changed))
    quietest = here.argsort()[:10]
    assert there[quietest].mean() > here[quietest].mean() + 3


def test_the_bits_of_a_row_are_the_same_in_every_batch_and_run() -> None:
    alone = np.concatenate([FITTED.sketch(pictures()[i : i + 1]) for i in range(100)])
    np.testing.assert_array_equal(alone, BITS[:100])
    np.testing.assert_array_equal(SimHash(Coarse.fit(pictures()), SALT).sketch(pictures()), BITS)


def test_a_table_of_one_column_tells_values_apart_on_both_sides_of_the_mean() -> None:
    x = np.linspace(-2, 2, 81, dtype=np.float32)[:, None]
    bits = SimHash(Coarse.fit(x), SALT).sketch(x)
    apart = hamming(bits[:, None], bits[None])
    assert apart[40, 41] < 15 and apart[10, 11] < 15
    assert apart[0, 20] > 10 and apart[40, 60] > 30 and apart[0, 80] > 120


def test_twice_a_row_of_a_narrow_table_is_another_row() -> None:
    x = np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)
    hashed = SimHash(Coarse.fit(x), SALT)
    assert np.median(hamming(hashed.sketch(x), hashed.sketch(2 * x))) > 20


def test_a_category_counts_as_a_number_does() -> None:
    numbers, texts = diamonds()
    hashed = SimHash(Coarse.fit(numbers, texts), SALT)
    bits = hashed.sketch(numbers, texts)
    other = texts.copy()
    other[:, 0] = np.roll(texts[:, 0], 1)
    apart = hamming(bits, hashed.sketch(numbers, other))
    changed = other[:, 0] != texts[:, 0]
    assert (apart[~changed] == 0).all()
    assert np.median(apart[changed]) > 20
    np.testing.assert_array_equal(bits, hashed.sketch(numbers, texts.astype(np.bytes_)))


def test_a_small_change_of_a_letter_is_nearer_than_another_letter() -> None:
    hashed = SimHash(Coarse.fit(letters()), SALT)
    bits, one_more = hashed.sketch(letters()), letters().copy()
    one_more[np.arange(1000), np.arange(1000) % 16] += 1
    apart = hamming(bits, hashed.sketch(one_more))
    assert np.median(apart) < 20 < 60 < np.median(hamming(bits[:500], bits[500:]))


def test_constant_pictures_have_bits_like_any_other() -> None:
    flat = np.stack([np.full((1, 28, 28), level, np.float32) for level in (0, 0.5, 1)])
    apart = hamming(FITTED.sketch(flat)[:, None], FITTED.sketch(flat)[None])
    assert apart[0, 1] > 10 and apart[0, 2] > 10


def test_no_rows_have_no_bits() -> None:
    assert FITTED.sketch(pictures()[:0]).shape == (0, 4)
