"""RawTabular: the values of a table row against those of the calibration data. Reads the table alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only
from guards.columns import Columns, known, tail_line
from guards.detector import I8, as_input, check_fit_rows
from guards.gaps import Gaps
from guards.joint import Joint
from guards.rarity import Tail, blend
from guards.rows import F8, Signals

MIN_ROWS = 80
TAIL_FLOORS = (1e-3, 1e-3, 0.5, 0.02, 0.25)
FRACTION = 0.02
LEAST_ERROR = 0.3
PREDICTED = 1.25


@dataclass(frozen=True, slots=True, eq=False)
class RawTabular:
    """Five sub-scores of a table row, each as a rarity, blended.

    Distance to the nearest prototype, Mahalanobis distance (broken correlations), the rarest single value,
    fractions in columns of whole numbers, and the pattern of missing values. A missing value (NaN or
    infinite) is not an error: its pattern has a rarity, small where it was common in fit.

    usual: log of the rows to fit on; a value of fewer nats does not count by itself. tails: of the five;
    errors: float64[2, f], the lines from errors of prediction to nats, for `standing_out`.
    """

    kind: ClassVar[str] = "raw_tabular"
    needs_features: ClassVar[bool] = False

    columns: Columns
    gaps: Gaps
    joint: Joint
    usual: float
    tails: tuple[Tail, ...]
    errors: F8

    @classmethod
    def fit(cls, s: Signals, y: I8, *, seed: int) -> Self:
        """Fit columns, patterns and prototypes on all rows, the tails by two-fold cross-fitting.

        The tails are those of each half of the rows under what was fitted on the other half.

        Args:    s.t: float32[n, f], one column per feature (`table.py`); y: int64[n], the classes of the
                 prototypes; seed: of the halves and of the prototypes.
        Raises:  ValueError for another rank, fewer than 80 rows, or columns that are all constant.
        """
        t = as_input("raw_tabular", "a table of inputs", s.t)
        if t.ndim != 2 or t.shape[1] < 1:
            raise ValueError(f"raw_tabular: t has shape {list(t.shape)}, expected [n, f >= 1]")
        check_fit_rows("raw_tabular", np.nan_to_num(t, posinf=0.0, neginf=0.0), y, MIN_ROWS)
        x = t.astype(np.float64)
        columns, usual, here = Columns.fit(x), math.log(len(x)), known(x)
        standard = columns.standard(columns.filled(x, here))
        if not np.ptp(standard, axis=0).any():
            raise ValueError("raw_tabular: the rows to fit on are all alike; give rows that vary")
        order = np.random.default_rng(seed).permutation(len(y))
        halves = order[::2], order[1::2]
        held_out = []
        for one, other in (halves, halves[::-1]):
            joint = Joint.fit(standard[one], here[one], y[one], seed)
            held_out.append(_scores(columns, Gaps.fit(here[one]), joint, usual, x[other]))
        scores = [np.concatenate(both) for both in zip(*held_out, strict=True)]
        tails = tuple(Tail.fit(score, floor=floor) for score, floor in zip(scores, TAIL_FLOORS, strict=True))
        joint = Joint.fit(standard, here, y, seed)
        lines = [tail_line(errors, LEAST_ERROR) for errors in joint.errors(standard).T]
        return cls(columns, Gaps.fit(here), joint, usual, tails, read_only(np.array(lines).T))

    def score(self, s: Signals, /) -> F8:
        """The blended rarity of the row.

        Returns: float64[n] nats in [0, inf), also for rows with missing values.
        Raises:  ValueError if t does not have the fitted width.
        Cost:    O(n m f): about 47 us at n=1, f=16.
        Source:  docs/guards.md, raw tabular; sub-scores chosen on ADBench (Han et al., NeurIPS 2022).
        """
        t = as_input("raw_tabular", "a table of inputs", s.t)
        width = len(self.columns.mean)
        if t.ndim != 2 or t.shape[1] != width:
            raise ValueError(
                f"raw_tabular: t has shape {list(t.shape)}, expected [n, {width}]; fit it on this model"
            )
        x = t.astype(np.float64)
        return blend(self.tails, _scores(self.columns, self.gaps, self.joint, self.usual, x))

    def standing_out(self, t: NDArray[np.float32]) -> F8:
        """How unusual each value of a row is, by itself or beside the others.

        A value that is unusual by itself, or missing, is first replaced by what the others say of it, so that
        it casts no doubt on them. An error of prediction that remains stands out in each column involved, if
        the others predict it to within 0.8 of its standard deviation.

        Args:    t: float32[n, f], of the fitted width.
        Returns: float64[n, f] nats, >= 0; the log of the number of rows to fit on is a lot.
        Cost:    O(n f^2) and up to one linear system a row; not for the hot path.
        """
        x = t.astype(np.float64)
        here = known(x)
        filled = self.columns.filled(x, here)
        standard, fractions = self.columns.standard(filled), self.columns.fractions(filled)
        alone = np.maximum(
            self.columns.rarities(standard),
            np.where(fractions > FRACTION, self.usual + fractions / FRACTION, 0.0),
        )
        alone = np.where(here, alone, self.gaps.rarities(here)[:, None])
        rows = [
            self.joint.without(row, drop)
            for row, drop in zip(standard, (alone > self.usual) | ~here, strict=True)
        ]
        slope, at_zero = self.errors
        beside = self.joint.errors(np.reshape(rows, standard.shape)) * slope + at_zero
        related = here & (self.joint.per_error > PREDICTED)
        return np.maximum(np.maximum(alone, np.where(related, beside, 0.0)), 0.0)


def _scores(columns: Columns, gaps: Gaps, joint: Joint, usual: float, x: F8) -> tuple[F8, ...]:
    """float64[n] each: nearest prototype, Mahalanobis, rarest value, largest fraction, pattern of gaps."""
    here = known(x)
    filled = columns.filled(x, here)
    standard = columns.standard(filled)
    return (
        *joint.distances(standard, here),
        np.maximum(np.maximum.reduce(columns.rarities(standard), 1), usual),
        np.maximum.reduce(columns.fractions(filled), 1),
        gaps.rarities(here),
    )
