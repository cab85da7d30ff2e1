"""How many independent samples the rows of a calibration file are.

Certificates count samples, and folds keep the rows of one sample together. The file's own `group` column
decides where there is one: rows of equal value are one sample. Without it, rows whose inputs and label are
equal byte for byte are either copies (a file stored several times, a class filled up, rows drawn with
replacement) or independent rows of a coarse table, each of which is a sample. Two steps tell them apart:

1. Where the numbers of times that the rows occur all have a common divisor g, the file is g copies of
   another: g equal rows are one sample. The same for the rows of one label alone, where that would be a
   coincidence of less than one in a thousand.
2. Of what is left, equal rows are independent samples or one sample (`repeats.py`).

What goes wrong: among few distinct rows a common divisor arises by chance (of d counts, with probability of
about 2^-d: 0.1 % of 10), and too few samples are counted. Copies that differ in anything (augmented images,
rounded again, relabelled) are independent rows here. So are copies that natural repeats outnumber. A `group`
column mends each, as does one of all different values for a file of independent rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.repeats import equal_rows_are_independent
from gateway.calibration.row_hashes import Columns
from gateway.core.decision import Tensors
from gateway.core.rows import RowIndices
from gateway.policy.kinds.rows import Labels

WARNED_SHARE = 0.98
"""Fewer samples than this share of the rows are warned of."""
REPEATED_SHARE = 0.5
"""Fewer distinct rows than this share of independent ones are warned of."""
COINCIDENCE = 1e-3
REMEDY = "an array `group` in the file, one value a row, overrules this"


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Which sample each of n rows belongs to, and why.

    group: int64[n], 0 to counted - 1, in the order of their first rows; by: what a sample is, "equal copies":
    g equal rows of a file stored g times; warning: a sentence for the operator, None where nothing is odd.
    """

    group: NDArray[np.int64]
    rows: int
    counted: int
    by: Literal["rows", "equal copies", "distinct rows", "groups"]
    warning: str | None


def count_samples(x: Tensors, y: Labels, group: NDArray[Any] | None) -> Samples:
    """Which rows are one sample.

    Args:    x: inputs by name, [n, ...]; group: the file's group column, as `dataset.read` returns them.
    Cost:    O(n d + n log n), 0.4 s for a million different rows of 16 columns; where rows repeat, that of
             `equal_rows_are_independent`.
    """
    if group is not None:
        return _of(np.unique(group, return_inverse=True)[1], "groups", "rows of one group are one sample")
    columns = Columns.of(x, y)
    hashes = columns.hashes(0, columns.count)
    first, cell, times = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)[1:]
    copies = _copies(times, y[first])
    multiplicity = times // copies
    if (multiplicity > 1).any() and equal_rows_are_independent(
        columns.take(first), multiplicity.astype(np.float64)
    ):
        sample = _rank(cell, times) // copies[cell] + (np.cumsum(multiplicity) - multiplicity)[cell]
        return _independent(sample, len(first))
    if len(first) == len(y):
        return _of(cell, "rows", "")
    return _of(cell, "distinct rows", f"equal rows are taken as copies of one another; {REMEDY}")


def one_row_of_each(group: NDArray[np.int64], rows: RowIndices, seed: int) -> RowIndices:
    """One of the given rows of every group that has any among them, drawn at random, in ascending order.

    Args:    group: int64[n], of all rows; rows: which of them.
    """
    shuffled = np.random.default_rng(seed).permutation(rows)
    chosen = np.unique(group[shuffled], return_index=True)[1]
    return np.sort(shuffled[chosen])


def _copies(times: NDArray[np.int64], labels: Labels) -> NDArray[np.int64]:
    """int64[d]: for each of d distinct rows, how many of its copies are one sample."""
    copies = np.full(len(times), np.gcd.reduce(times))
    names, label = np.unique(labels, return_inverse=True)
    for i in range(len(names)):
        divisor = int(np.gcd.reduce(times[label == i]))
        if (label == i).sum() * math.log(divisor) >= math.log(len(names) / COINCIDENCE):
            copies[label == i] = divisor
    return copies


def _rank(cell: NDArray[np.intp], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[n]: how many equal rows come before each row."""
    order = np.argsort(cell, kind="stable")
    rank = np.empty(len(cell), np.int64)
    rank[order] = np.arange(len(cell)) - np.repeat(np.cumsum(times) - times, times)
    return rank


def _independent(sample: NDArray[np.int64], distinct: int) -> Samples:
    counted = int(sample.max()) + 1
    if counted < len(sample):
        return _of(
            sample, "equal copies", f"rows occur in multiples, as in a file stored several times; {REMEDY}"
        )
    repeated = f"{len(sample):,} rows, of which {distinct:,} differ, all count as independent samples"
    warning = (
        f"{repeated}; if some are copies, say so: {REMEDY}" if distinct < REPEATED_SHARE * counted else None
    )
    return Samples(np.arange(counted), counted, counted, "rows", warning)


def _of(
    sample: NDArray[np.int64], by: Literal["rows", "equal copies", "distinct rows", "groups"], why: str
) -> Samples:
    """Samples numbered in the order of their first rows."""
    first, inverse = np.unique(sample, return_index=True, return_inverse=True)[1:]
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    n, counted = len(sample), len(first)
    warning = f"{n:,} rows count as {counted:,} samples: {why}" if counted < WARNED_SHARE * n else None
    return Samples(number[inverse], n, counted, by, warning)
