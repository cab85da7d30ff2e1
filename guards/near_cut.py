"""The largest distance that counts as near: at most a stated share of honest rows may match by it.

The more queries are retained, the more honest rows resemble one of them. So the cut is certified for the
number that is retained: a memory of m honest rows is filled, other honest rows are looked up in it, and the
share that matches gets an upper bound. A memory of N rows is N / m such memories, of which an honest row
matches one or more with at most the sum of their chances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from guards.detector import I8
from guards.fingerprints import KEPT, LEAST_SHARED, shared
from guards.query_sketch import Sketches
from guards.selective import clopper_pearson_upper
from guards.simhash import BITS, hamming

MOST_CUT: Final = BITS // 4
"""Beyond a quarter of the bits, rows are hardly more alike than any two."""


SHARE_OF_PRINTS: Final = 0.25
"""Of the share of honest rows that may match, what fingerprints alone may take, about."""
BEYOND_FITTED: Final = 2


class FingerprintsMatch(ValueError):
    """Honest rows share fingerprints too often, whatever the cut is."""


@dataclass(frozen=True, slots=True)
class NearCut:
    """cut: the largest near distance, -1 if only fingerprints may match. matched of tested rows did, against
    `held` retained ones. share: of honest rows that match one of `retained` queries, with probability
    1 - delta at most this; expected: about so many.
    """

    cut: int
    matched: int
    tested: int
    held: int
    retained: int
    share: float
    expected: float


def near_cut(
    sketches: Sketches, retained: int, share: float, delta: float, *, seed: int, least_shared: int
) -> NearCut:
    """The largest cut whose bound is at most `share`.

    Half of the rows are held, at most `retained`, and the others tested. Cuts are tried upwards from -1 until
    one fails (a fixed sequence, so that the choice costs nothing). Rows of equal content are repetitions and
    match nothing here. With ratio = ceil(retained / held), the bound is ratio times the Clopper-Pearson bound
    of the tested rows.

    Args:    sketches: of n honest rows, independent draws; retained: queries that the memory holds; share,
             delta: in (0, 1); seed: of the halves; least_shared: fingerprints in common that match.
    Returns: also for a cut of -1; fingerprints alone may then match.
    Raises:  ValueError if not even no match among the rows would certify the share, with the rows it needs
             (`rows_needed`); FingerprintsMatch if fingerprints alone match too often.
    Cost:    O(n^2): some 10 s for 20,000 rows.
    Source:  Clopper and Pearson, Biometrika 26 (1934); docs/guards.md, the cut of near rows, for what the
             step from `held` to `retained` assumes.
    """
    _check(len(sketches.bits), retained, share, delta)
    order, n_held = _order(len(sketches), seed), _held(len(sketches), retained)
    ratio, n_tested = math.ceil(retained / n_held), len(sketches) - n_held
    nearest = _nearest(sketches.take(order[n_held:]), sketches.take(order[:n_held]), least_shared)
    found = None
    for cut in range(-1, MOST_CUT + 1):
        matched = int((nearest <= cut).sum())
        bound = ratio * clopper_pearson_upper(matched, n_tested, delta)
        if bound > share:
            break
        expected = min(1.0, ratio * matched / n_tested)
        found = NearCut(cut, matched, n_tested, n_held, retained, bound, expected)
    if found is None:
        raise FingerprintsMatch(
            f"near: fingerprints alone match {matched} of {n_tested} honest rows; leave them out"
        )
    return found


def least_shared(sketches: Sketches, retained: Sequence[int], share: float, *, seed: int) -> int:
    """From how many fingerprints in common rows are to match: so that few honest rows do by them alone.

    The rows of the smallest half that `near_cut` holds of these rows, which it does not test, are compared
    with one another. The least number is taken, 8 or more, by which a quarter of the share of them matches,
    and two more, since it fits these rows best.

    Args:    retained: one number or more, for each of which there is to be a cut; others as of `near_cut`.
    Returns: 8 .. 50, or 51: for none, as of rows without fingerprints.
    Cost:    O(n^2): 0.2 s for 1,024 rows.
    """
    if not sketches.prints.marks.shape[1]:
        return KEPT + 1
    n_held = min(_held(len(sketches), one) for one in retained)
    held = sketches.take(_order(len(sketches), seed)[:n_held])
    most = np.zeros(n_held, np.int64)
    for i, marks in enumerate(held.prints.marks):
        common = shared(marks, held.prints.marks)
        common[held.contents == held.contents[i]] = 0
        most[i] = common.max(initial=0)
    ratio = math.ceil(max(retained) / n_held)
    for number in range(LEAST_SHARED, KEPT + 1):
        if ratio * float((most >= number).mean()) <= share * SHARE_OF_PRINTS:
            return min(number + BEYOND_FITTED, KEPT + 1)
    return KEPT + 1


def _check(n: int, retained: int, share: float, delta: float) -> None:
    if not (retained >= 1 and 0 < share < 1 and 0 < delta < 1):
        raise ValueError(f"near: retained {retained}, share {share}, delta {delta}; expected >= 1, in (0, 1)")
    if _least_bound(n, retained, delta) > share:
        needed = rows_needed(retained, share, delta)
        raise ValueError(
            f"near: {n} rows cannot certify a share of {share:g} of {retained} retained; give "
            f"{needed} rows, or retain fewer"
        )


def rows_needed(retained: int, share: float, delta: float) -> int:
    """The fewest rows, none of which matches another, that certify the share. Args as of `near_cut`."""
    low, high = 2, 4
    while _least_bound(high, retained, delta) > share:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        enough = _least_bound(middle, retained, delta) <= share
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def _least_bound(n: int, retained: int, delta: float) -> float:
    """The bound that n rows give if none matches; of about 2 * retained * 2 * -log(delta) / n^2."""
    held = _held(n, retained)
    if held == 0:
        return math.inf
    return math.ceil(retained / held) * float(1 - delta ** (1 / (n - held)))


def _order(n: int, seed: int) -> I8:
    return np.random.default_rng(seed).permutation(n)


def _held(n: int, retained: int) -> int:
    return min(n // 2, retained)


def _nearest(tested: Sketches, held: Sketches, least_shared: int) -> I8:
    """int64[n]: the distance to the nearest held row of another content; -1 if it matches by fingerprints.

    Here every pair with enough fingerprints in common counts, also one that the memory would not find.
    """
    nearest = np.empty(len(tested.bits), np.int64)
    for i, bits in enumerate(tested.bits):
        same = held.contents == tested.contents[i]
        apart = hamming(bits[None], held.bits)
        apart[same] = BITS + 1
        nearest[i] = apart.min()
        if (shared(tested.prints.marks[i], held.prints.marks)[~same] >= least_shared).any():
            nearest[i] = -1
    return nearest
