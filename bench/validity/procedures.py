"""Procedures that certify a confidence cut: each returns the loosest cut of which it is sure, or none.

All are families of exact binomial tests of cuts, and differ in which cuts they test, in which order, and how
they divide delta. `pilot` rows may choose all of that; the `test` rows then decide.

* `strict end`: a fixed sequence over ranks of the test rows, from the first rank that would pass with two
  errors, loosening; each cut at the whole of delta. `guards/selective.py` did this until issue 12.
* `grid 10`, `grid 20`: as many coverages of the pilot rows, each at the same part of delta (Bonferroni).
* `starts`: 20 coverages, loosening; five of them are starts with a fifth of delta each, and a cut that passes
  hands its level on. Wiens, Pharmaceutical Statistics 2 (2003), the fallback procedure.
* `pilot 2`, `pilot 3`, `pilot 4`: a fixed sequence over coverages of the pilot rows, from the strictest that
  these expect to pass by so many standard deviations. `guards/selective.py` does this, with 3.
* `exact power`: the same, but from the strictest cut that an exact test would pass with probability 0.9987 at
  the pilot rows' error, or from the one with the largest probability. It counts on two standard deviations
  fewer accepted test rows than the pilot rows say, since a test passes nothing below a number of rows.

Source of the fixed sequence: Bauer, Statistics in Medicine 10 (1991).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from gateway.core.rows import Mask
from guards.atoms import SUSPICIONS, cut_above
from guards.binomial import cdf
from guards.detector import I8
from guards.rows import F8
from guards.selective import Labelled, accepted_needed, candidate_cuts, margins, most_errors, passing

STRICT_COVERAGES = tuple(i / 200 for i in range(8, 201))
STARTS = 5
START_ERRORS = 2
SURE, FEWER = 0.9987, 2.0
"""Of `exact_power`: three standard deviations, and by how many fewer rows may be accepted than expected."""


Procedure = Callable[[Labelled, Labelled, float, float], float | None]
"""(pilot, test, r, delta) to the certified cut: a row is accepted below it."""


def strict_end(pilot: Labelled, test: Labelled, r: float, delta: float) -> float | None:
    """A fixed sequence over ranks of the test rows themselves. Reads no pilot row."""
    ranked, n = np.sort(test.suspicion), len(test.suspicion)
    ranks = np.unique(np.floor(np.array(STRICT_COVERAGES) * n + 1e-9).astype(np.int64))
    above = np.append(ranked, np.nextafter(ranked[-1], np.inf))
    cuts = np.unique(above[ranks])
    accepted, _ = test.below(cuts.tolist())
    enough = accepted >= accepted_needed(START_ERRORS, r, delta)
    if not enough.any():
        enough = accepted >= accepted_needed(0, r, delta)
    if not enough.any():
        return None
    first = int(np.argmax(enough))
    return _loosest(cuts[first:], test, r, delta)


def bonferroni(pilot: Labelled, test: Labelled, r: float, delta: float, *, cuts: int) -> float | None:
    """Each of some coverages at its part of delta."""
    grid = np.array(_grid(pilot, cuts))
    passed = _passes(*test.below(grid.tolist()), r, delta / len(grid))
    return float(grid[passed][-1]) if passed.any() else None


def several_starts(pilot: Labelled, test: Labelled, r: float, delta: float, *, cuts: int) -> float | None:
    """The fallback procedure: from strict to loose, with new level at each start and what was handed on."""
    grid = _grid(pilot, cuts)
    starts = {round(i * len(grid) / STARTS) for i in range(STARTS)}
    counts = zip(*test.below(grid), strict=True)
    level, found = 0.0, None
    for i, (cut, (accepted, errors)) in enumerate(zip(grid, counts, strict=True)):
        level += delta / len(starts) if i in starts else 0.0
        if level > 0 and errors <= most_errors(int(accepted), r, level):
            found = cut
        else:
            level = 0.0
    return found


def pilot_ordered(
    pilot: Labelled, test: Labelled, r: float, delta: float, *, wide_margin: float
) -> float | None:
    """A fixed sequence from the strictest cut that the pilot rows expect to pass by a wide margin."""
    cuts = np.array(candidate_cuts(pilot.suspicion))
    scale = len(test.suspicion) / len(pilot.suspicion)
    expected = margins(*pilot.below(cuts.tolist()), r, delta, scale)
    wide = np.flatnonzero(expected >= wide_margin)
    start = int(wide[0]) if wide.size else int(np.argmax(expected))
    return _loosest(cuts[start:], test, r, delta)


def exact_power(pilot: Labelled, test: Labelled, r: float, delta: float) -> float | None:
    """A fixed sequence from the strictest cut whose test passes almost surely, or else most probably."""
    cuts, n = np.array(candidate_cuts(pilot.suspicion)), len(test)
    accepted, errors = pilot.below(cuts.tolist())
    coverage, rate = accepted / len(pilot), (errors + 0.5) / (accepted + 1)
    expected = np.maximum(n * coverage - FEWER * np.sqrt(n * coverage * (1 - coverage)), 0).astype(np.int64)
    power = np.array([_power(m, q, r, delta) for m, q in zip(expected.tolist(), rate.tolist(), strict=True)])
    sure = np.flatnonzero(power >= SURE)
    start = int(sure[0]) if sure.size else int(np.argmax(power))
    return _loosest(cuts[start:], test, r, delta)


def _power(rows: int, rate: float, r: float, delta: float) -> float:
    """The probability that so many rows with this error certify r."""
    return cdf(most_errors(rows, r, delta), rows, rate)


PROCEDURES: Mapping[str, Procedure] = {
    "strict end": strict_end,
    "grid 10": partial(bonferroni, cuts=10),
    "grid 20": partial(bonferroni, cuts=20),
    "starts": partial(several_starts, cuts=20),
    "pilot 2": partial(pilot_ordered, wide_margin=2.0),
    "pilot 3": partial(pilot_ordered, wide_margin=3.0),
    "pilot 4": partial(pilot_ordered, wide_margin=4.0),
    "exact power": exact_power,
}


def _grid(pilot: Labelled, cuts: int) -> Sequence[float]:
    """Cuts at evenly spaced coverages of the pilot rows, ascending, each once."""
    ranked = np.sort(pilot.suspicion)
    ranks = [max(1, len(ranked) * (i + 1) // cuts) - 1 for i in range(cuts)]
    return sorted({cut_above(ranked, rank, SUSPICIONS) for rank in ranks})


def _passes(accepted: I8, errors: I8, r: float, delta: float) -> Mask:
    most = [most_errors(int(m), r, delta) for m in accepted]
    return np.asarray(errors <= np.array(most))


def _loosest(cuts: F8, test: Labelled, r: float, delta: float) -> float | None:
    """The last cut of a fixed sequence before its first failure."""
    length = passing(*test.below(cuts.tolist()), r, delta)
    return float(cuts[length - 1]) if length else None
