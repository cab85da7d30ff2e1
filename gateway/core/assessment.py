"""What one stage found for the rows of a batch, as columns; and what all stages found for one row."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Finding, Verdict
from gateway.core.rows import F8, RowIndices

Verdicts: TypeAlias = NDArray[np.int8]
VERDICT_BY_VALUE = tuple(Verdict)  # a look-up is cheaper than the enum's own call
NO_ERRORS: Mapping[int, str] = MappingProxyType({})


@lru_cache(maxsize=256)
def allowed(n: int) -> Verdicts:
    """n times ALLOW, read-only and cached."""
    verdicts = np.zeros(n, np.int8)
    verdicts.flags.writeable = False
    return verdicts


@lru_cache(maxsize=256)
def unscored(n: int) -> F8:
    """n times NaN, for no score; read-only and cached."""
    scores = np.full(n, np.nan)
    scores.flags.writeable = False
    return scores


class Assessment(NamedTuple):
    """What one stage found for n rows, as columns. Where it failed, the score is NaN and `errors` says why.

    all_allowed: every row, and nothing failed. input_only_rows: those that were judged without features.
    """

    stage: str
    scores: F8
    verdicts: Verdicts
    all_allowed: bool
    enforced: bool
    elapsed_s: float
    errors: Mapping[int, str] = NO_ERRORS
    input_only_rows: frozenset[int] = frozenset()

    def finding(self, i: int) -> Finding:
        """What was found for row i."""
        score = self.scores.item(i)
        return Finding(
            self.stage,
            None if math.isnan(score) else score,
            VERDICT_BY_VALUE[self.verdicts.item(i)],
            self.enforced,
            self.elapsed_s,
            "input_only" if i in self.input_only_rows else "full",
            self.errors.get(i),
        )


Trail: TypeAlias = Sequence[tuple[RowIndices, Assessment]]
"""Each stage's assessment, in order, with the rows of the batch that it judged, ascending."""


class Findings(Sequence[Finding]):
    """The findings of one row, in order; each is made only when it is read."""

    __slots__ = ("row", "trail")

    def __init__(self, trail: Trail, row: int) -> None:
        self.trail = trail
        self.row = row

    def __iter__(self) -> Iterator[Finding]:
        for rows, found in self.trail:
            if (at := _place(rows, self.row)) is not None:
                yield found.finding(at)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, at: Any) -> Any:
        return tuple(self)[at]


def largest_scores(findings: Sequence[Sequence[Finding]], stages: Collection[str]) -> list[float]:
    """For each row the largest score that any of these stages gave it; NaN where none has.

    Cost:    2 us for each batch in which the rows were decided, and 0.3 us a row: no finding is made.
    """
    largest = list[float]()
    trail: Trail | None = None
    for one in findings:
        score = math.nan
        if isinstance(one, Findings):
            if one.trail is not trail:
                trail = one.trail
                columns = [(rows, found.scores) for rows, found in trail if found.stage in stages]
            for rows, scores in columns:
                if (at := _place(rows, one.row)) is not None:
                    found_score: float = scores.item(at)
                    if not found_score <= score and not math.isnan(found_score):
                        score = found_score
        largest.append(score)
    return largest


def _place(rows: RowIndices, row: int) -> int | None:
    """Where a row is among ascending rows; None if it is not."""
    if row < len(rows) and rows.item(row) == row:  # as long as all rows before it are there
        return row
    at = int(np.searchsorted(rows, row))
    return at if at < len(rows) and rows.item(at) == row else None
