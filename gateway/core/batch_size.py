"""How many rows are decided together: as many as are worth it, and are answered well within time budgets.

A pass that runs out of its budget fails every row in it, so a model that takes longer for more rows must get
fewer. How long it takes is measured: of the latest batches of each size, by powers of two, the longest share
of its budget that a model's pass took. The wait behind another batch's pass is part of it, since it counts
against the budget as well.

    the share is at most 1/2         this size is good; the next is tried at 2/5, of two lanes at 1/5
    it is more, as with fewer rows   good too up to 9/10: fewer rows would not help
    it is more                       sizes below this one are used
    above 1/2 in two lanes           batches are decided one at a time, until it is below 1/5

Of these sizes the smallest is used that takes at most `WORTH` times as long for a row as the best: a larger
one would only make rows wait.

Clipper (Crankshaw et al., NSDI 2017, section 4.3) increases additively and decreases multiplicatively. That
ends at one row a batch for a model that takes the same time for any number of rows.

What was measured more than `FORGET_S` ago is measured again. A size that was too large is tried again sooner:
passes also take long where something else has the processor for a moment, as at the first second of an
overload, and small batches would then make the overload last. The first time after `RETRY_S`, and each time
that it is still too large after twice as long.
"""

from __future__ import annotations

from typing import NamedTuple

MOST_SHARE, MOST_CONSTANT_SHARE = 0.5, 0.9
NEXT_SIZE_SHARE = 0.4
SECOND_LANE_SHARE = 0.2
CONSTANT = 1.25
"""A share that is at most so many times that of the smallest size does not depend on the rows."""
FIRST_EXPONENT, MOST_EXPONENT = 4, 10
"""Sixteen rows are tried before anything is known, and never more than 1,024."""
MOST_LANES = 2
LONGEST_SHARE = 1.5
"""Longer passes count as so long: one of them must not decide."""
SMOOTHING = 0.3
"""The weight of the newest batch, of which at most twice the time counts that was expected."""
FORGET_S = 10.0
RETRY_S = 0.5
WORTH = 1.02
EVIDENCE = 3
"""So many batches of a size are needed before it counts, unless one has run out of its budget."""


class _Seen(NamedTuple):
    """What batches of one size took. row_s: seconds for each row; batches: how many of them there were.

    valid_s: for how long after `at_s` it says something.
    """

    share: float
    row_s: float
    at_s: float
    batches: int
    valid_s: float

    def is_valid_at(self, now_s: float) -> bool:
        return now_s - self.at_s < self.valid_s

    def counts_at(self, now_s: float) -> bool:
        """Whether it is enough to go by, and not too old."""
        return self.is_valid_at(now_s) and (self.batches >= EVIDENCE or self.share >= 1.0)


class BatchSize:
    """most: rows of a batch at most; may be changed at any time. lanes: batches decided at a time."""

    def __init__(self, most: int) -> None:
        self.most, self.lanes = most, MOST_LANES
        self._seen: list[_Seen | None] = [None] * (MOST_EXPONENT + 1)
        self._rows = 1 << FIRST_EXPONENT
        self._floor, self._floor_s = (
            FIRST_EXPONENT,
            0.0,
        )  # of requests that are larger than a batch, since when

    @property
    def rows(self) -> int:
        """How many rows the next batch may have, at least 1."""
        return min(self.most, self._rows)

    def observe(self, rows: int, share: float, spent_s: float, now_s: float) -> None:
        """Learns of one batch.

        Args:    share: of its budget, the longest that a model's pass took; spent_s: on it, since the batch
                 before it was decided.
        """
        row_s = spent_s / rows
        exponent, share, count = (rows - 1).bit_length(), min(share, LONGEST_SHARE), 1
        if rows > self.rows:
            self._floor, self._floor_s = exponent, now_s
        elif now_s - self._floor_s >= FORGET_S:
            self._floor = FIRST_EXPONENT
        before = self._seen[exponent]
        if before is not None and before.is_valid_at(now_s):
            count += before.batches
            share = _smoothed(before.share, share)
            row_s = _smoothed(before.row_s, row_s)
        seen = self._seen[exponent] = _Seen(share, row_s, now_s, count, _valid_s(share, before, now_s))
        if not seen.counts_at(now_s):
            return
        if share > MOST_SHARE and self.lanes == MOST_LANES:
            self.lanes = 1  # the shares seen so far were of two lanes, and so are at most too high
        elif share < SECOND_LANE_SHARE:
            self.lanes = MOST_LANES
        self._rows = 1 << self._best_exponent(now_s)

    def _best_exponent(self, now_s: float) -> int:
        """The smallest size that is worth it, of those that are good."""
        good = self._largest_good(now_s)
        row_s = {
            exponent: seen.row_s
            for exponent, seen in enumerate(self._seen[: good + 1])
            if exponent >= FIRST_EXPONENT and seen is not None and seen.counts_at(now_s)
        }
        if not row_s:
            return good
        worth = WORTH * min(row_s.values())
        best = min(exponent for exponent, one in row_s.items() if one <= worth)
        if best > self._floor and best - 1 not in row_s:
            return best - 1  # tried, or tried again
        return best + 1 if best == max(row_s) and best < good else best

    def _largest_good(self, now_s: float) -> int:
        best, least = FIRST_EXPONENT, None
        for exponent, seen in enumerate(self._seen):
            if seen is None or not seen.counts_at(now_s):
                continue
            least = seen.share if least is None else least
            constant = seen.share <= min(CONSTANT * least, MOST_CONSTANT_SHARE)
            if seen.share > MOST_SHARE and not constant:
                return max(0, exponent - 1)
            may_grow = constant or seen.share <= NEXT_SIZE_SHARE / self.lanes
            best = max(best, exponent + may_grow) if exponent >= FIRST_EXPONENT else best
        return min(best, MOST_EXPONENT)


def _valid_s(share: float, before: _Seen | None, now_s: float) -> float:
    """For how long a size counts as it was found now; `before` is what was found of it the last time."""
    if share <= MOST_SHARE:
        return FORGET_S
    if before is None or before.share <= MOST_SHARE:
        return RETRY_S
    return before.valid_s if before.is_valid_at(now_s) else min(2 * before.valid_s, FORGET_S)


def _smoothed(before: float, now: float) -> float:
    return before + SMOOTHING * (min(now, 2 * before) - before)
