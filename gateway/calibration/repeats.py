"""Whether equal rows of a table arose independently, as answers to a short survey do, or are copies.

Counts of pairs of rows decide. If two columns j and k matched independently of each other among pairs that
agree in all other columns, then

    (pairs that agree everywhere) (pairs that differ in j and k alone)
    ------------------------------------------------------------------  =  1
       (pairs that differ in j alone) (pairs that differ in k alone)

Copies add pairs that agree everywhere, and so raise every such odds ratio by the factor by which they
outnumber the natural repeats. Columns that depend on each other raise it as well, so that the smallest ratio
over many pairs of columns says the most: equal rows are taken as independent where it is at most 1.5. A ratio
counts with the standard error of its rarest pairs added, and not at all where these are fewer than three. The
"columns" j and k are single columns (the label is one), or all columns up to one and all from it on: the
columns of a one-hot code change together.

Where no two inputs can be compared, since each follows from the others (one column, products, totals), labels
decide: rows with equal inputs are independent if at most 70 % of their pairs agree in the label.

What goes wrong, measured on 25 tables of each of eleven kinds with 500 to 6,000 rows (independent, correlated
or derived columns, one-hot codes, catalogues, rounded and continuous columns):

* Independent rows are taken as copies, the safe error, in 6 % of the tables with much noise in the labels,
  27 % with little and 42 % with none (mostly one-hot codes and correlated columns; always a catalogue alone).
* Copies are taken as independent where natural repeats outnumber them: in 25 % of the tables after drawing
  five times their rows with replacement, in 26 % after filling up a class so; never with a continuous column.

The share of matches in one column alone does not tell copies: in a table of products with one continuous
column, resampled, it is 1 % for that column, just as if prices were independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from gateway.calibration.row_hashes import Columns, Hashes
from gateway.core.rows import F8

MOST_COLUMNS = 64
"""Of more columns, a seeded sample is compared."""
CANDIDATES = 8
"""The columns compared with each other: those in which the most pairs differ alone."""
SPLITS = 8
"""The table is split into columns before and from d/8, 2d/8 and so on."""
HIGHEST_ODDS = 1.5
HIGHEST_LABEL_MATCH = 0.7
FEWEST_PAIRS = 3
SEED = 0


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of rows, kept as pairs of distinct rows with weights, the products of their multiplicities."""

    weight: float
    squared: float

    def __sub__(self, other: _Pairs) -> _Pairs:
        return _Pairs(self.weight - other.weight, self.squared - other.squared)

    @property
    def effective(self) -> float:
        """How many pairs of weight one have the same relative error (Kish)."""
        return self.weight**2 / self.squared if self.squared > 0.5 else 0.0


def equal_rows_are_independent(columns: Columns, multiplicity: F8) -> bool:
    """Whether equal rows arose independently; otherwise, or where nothing shows it, they are copies.

    Args:    columns: n distinct rows; multiplicity: float64[n], how often each occurs, not all once.
    Cost:    at most 65 + 28 + 14 sorts of n hashes; 8 s for a million distinct rows of 16 columns.
    """
    whole = columns.hashes(0, columns.count)
    equal = float((multiplicity * (multiplicity - 1) / 2).sum())
    alone = _differing_alone(columns, whole, multiplicity)
    compared = (
        _column_odds(columns, whole, multiplicity, equal, alone),
        _split_odds(columns, multiplicity, equal),
    )
    if any(odds <= HIGHEST_ODDS for odds in chain.from_iterable(compared)):
        return True
    label = alone.pop(columns.count - 1)
    comparable = sum(pairs.effective >= FEWEST_PAIRS for pairs in alone.values())
    match = equal / (equal + label.weight)
    return comparable < 2 and match <= HIGHEST_LABEL_MATCH and label.effective >= FEWEST_PAIRS


def _differing_alone(columns: Columns, whole: Hashes, multiplicity: F8) -> dict[int, _Pairs]:
    """By column, the label too: the pairs that differ in it alone."""
    inputs = np.arange(columns.count - 1)
    if len(inputs) > MOST_COLUMNS:
        inputs = np.random.default_rng(SEED).choice(inputs, MOST_COLUMNS, replace=False)
    return {
        j: _agreeing(whole - columns.hashes(j, j + 1), multiplicity)
        for j in (*inputs.tolist(), columns.count - 1)
    }


def _column_odds(
    columns: Columns, whole: Hashes, multiplicity: F8, equal: float, alone: Mapping[int, _Pairs]
) -> Iterator[float]:
    most = sorted(alone, key=lambda j: alone[j].weight, reverse=True)[:CANDIDATES]
    hashes = {j: columns.hashes(j, j + 1) for j in most if alone[j].effective >= FEWEST_PAIRS}
    for j, k in combinations(hashes, 2):
        rest = _agreeing(whole - hashes[j] - hashes[k], multiplicity)
        yield from _odds(equal, alone[j], alone[k], rest - alone[j] - alone[k])


def _split_odds(columns: Columns, multiplicity: F8, equal: float) -> Iterator[float]:
    d = columns.count
    every = _agreeing(np.zeros(len(multiplicity), np.uint64), multiplicity)
    for cut in sorted({round(i * d / SPLITS) for i in range(1, SPLITS)} - {0, d}):
        before = _agreeing(columns.hashes(cut, d), multiplicity)
        after = _agreeing(columns.hashes(0, cut), multiplicity)
        yield from _odds(equal, before, after, every - before - after)


def _odds(equal: float, one: _Pairs, other: _Pairs, both: _Pairs) -> Iterator[float]:
    """The odds ratio with its standard error added; none where too few pairs say it."""
    counts = [pairs.effective for pairs in (one, other, both)]
    if min(counts) >= FEWEST_PAIRS:
        error = math.sqrt(sum(1 / count for count in counts))
        yield equal * both.weight / (one.weight * other.weight) * (1 + error)


def _agreeing(hashes: Hashes, multiplicity: F8) -> _Pairs:
    """The pairs of distinct rows with equal hashes."""
    order = np.argsort(hashes)
    ordered, m = hashes[order], multiplicity[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    squares = m * m
    s1, s2, s4 = (np.add.reduceat(a, starts) for a in (m, squares, squares * squares))
    return _Pairs(float((s1 * s1 - s2).sum()) / 2, float((s2 * s2 - s4).sum()) / 2)
