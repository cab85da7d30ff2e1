"""Which rows a principal has been answered: none that it was not, and most that it was."""

from __future__ import annotations

import numpy as np

from guards.answered_rows import ENTRIES, AnsweredRows
from guards.contents import Contents


def test_a_row_is_known_once_it_was_added_and_only_for_its_principal() -> None:
    rows = AnsweredRows()
    assert [rows.add(pair) for pair in [(1, 7), (1, 8), (1, 7)]] == [False, False, True]
    assert (1, 8) in rows and (2, 7) not in rows
    assert [rows.add(pair) for pair in [(2, 7), (1, 8)]] == [False, True]


def test_no_pair_is_taken_for_another() -> None:
    rng = np.random.default_rng(0)
    pairs = list(
        zip(rng.integers(0, 2**63, 50_000).tolist(), rng.integers(0, 2**63, 50_000).tolist(), strict=True)
    )
    rows = AnsweredRows()
    assert [rows.add(pair) for pair in pairs] == [False] * len(pairs)


def test_the_latest_are_kept_and_others_forgotten() -> None:
    rows, rng = AnsweredRows(), np.random.default_rng(0)
    contents = rng.integers(0, 2**64, 4 * ENTRIES, np.uint64).tolist()
    for content in contents:
        rows.add((1, content))
    assert np.mean([(1, content) in rows for content in contents[-1000:]]) > 0.95
    assert np.mean([(1, content) in rows for content in contents[:1000]]) < 0.05


def test_contents_of_whole_numbers_come_to_places_of_their_own() -> None:
    """As floats they end in zeros, and so do their contents."""
    x = np.random.default_rng(0).integers(0, 16, (2000, 16)).astype(np.float32)
    contents = np.unique(Contents(bytes(16)).of({"x": x}, len(x))).tolist()
    rows = AnsweredRows()
    for content in contents:
        rows.add((7, content))
    assert np.mean([(7, content) in rows for content in contents]) > 0.97
