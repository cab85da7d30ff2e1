"""A guard with its policy, and the one place that turns a failure into a verdict.

A guard returns a number. What that number means (the cuts), how long it may take, what to assume when
it fails and whether it is enforced or only observed is policy data, stored here. `assess` never raises:
it returns a verdict for every row, whatever the guard does.

* A score is compared with `>=`. NaN and -inf are errors, never numbers: `nan >= cut` is false, so an
  unchecked NaN would be a silent fail-open. +inf is the strongest alarm.
* A guard that fails on n > 1 rows is called again row by row, so that one bad row never decides for the
  others; one that ran out of time is not called again.
* A guard that reads a model's features is replaced by its input-only form (`without_features`, calibrated
  like the first) on the rows for which that model failed. What is assumed of a model that failed is not
  assumed of a row that the model cannot take: the pipeline ends that.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from gateway.core.assessment import NO_ERRORS, VERDICT_BY_VALUE, Assessment, Verdicts, allowed
from gateway.core.batch import Batch
from gateway.core.deadline import call_within, now_s
from gateway.core.decision import Reason, Verdict
from gateway.core.errors import BudgetExceeded, GuardFailed, StageFailure
from gateway.core.model import Forward
from gateway.core.rows import F8, RowIndices


class Judged(Protocol):
    """The rows that a stage judges: how many, and any of them alone."""

    def __len__(self) -> int: ...
    def take(self, rows: RowIndices) -> Self: ...


ASSUMED_OF_INVALID = Verdict.ALLOW
"""Of a row that the model cannot take, in place of what is assumed of a model that failed."""
J_contra = TypeVar("J_contra", bound=Judged, contravariant=True)
J = TypeVar("J", bound=Judged)


class Guard(Protocol[J_contra]):
    """Returns one number a row, float64[n]; larger = more suspicious. Knows no threshold."""

    async def score(self, rows: J_contra, /) -> F8: ...


@dataclass(frozen=True, slots=True)
class Stage(Generic[J]):
    """A guard and its policy.

    cuts: the score from which the stage gives each verdict; score_range: the least and the largest number
    that the guard gives, for what is said of all its scores (`possible_verdicts`).
    """

    name: str
    guard: Guard[J]
    cuts: Mapping[Verdict, float]
    reason: Reason
    budget_s: float
    on_error: Verdict
    enforce: bool = True
    retry_scale_s: float | None = None
    score_range: tuple[float, float] = (-sys.float_info.max, math.inf)
    lowest_cut: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lowest_cut", min(self.cuts.values(), default=math.inf))

    async def assess(self, rows: J, until_s: float) -> Assessment:
        """A verdict for every row by `until_s` (loop seconds) at the latest. Never raises."""
        start_s = time.perf_counter()
        n = len(rows)
        errors: Mapping[int, str] = NO_ERRORS
        try:
            scores = await self._ask(rows, n, until_s)
        except BudgetExceeded as failure:
            scores, errors = np.full(n, np.nan), dict.fromkeys(range(n), str(failure))
        except StageFailure as failure:
            scores, errors = np.full(n, np.nan), dict.fromkeys(range(n), str(failure))
            if n > 1:
                scores, errors = await self._row_by_row(rows, n, min(now_s() + self.budget_s, until_s))
        all_allowed = self._allows_all(scores)
        if all_allowed:
            verdicts = allowed(n)
        else:
            scores, verdicts, errors = self._judge(scores, dict(errors))
        elapsed_s = time.perf_counter() - start_s
        return Assessment(self.name, scores, verdicts, all_allowed, self.enforce, elapsed_s, errors)

    async def _ask(self, rows: J, n: int, until_s: float) -> F8:
        raw = await call_within(self.name, self.guard.score, rows, self.budget_s, until_s, GuardFailed)
        try:
            scores = np.asarray(raw, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise GuardFailed(f"{self.name}: scores are not numbers") from error
        if scores.shape != (n,):
            raise GuardFailed(f"{self.name}: scores have shape {scores.shape}, not ({n},)")
        return scores

    async def _row_by_row(self, rows: J, n: int, until_s: float) -> tuple[F8, dict[int, str]]:
        scores, errors = np.full(n, np.nan), dict[int, str]()
        for i in range(n):
            try:
                scores[i : i + 1] = await self._ask(rows.take(np.array([i])), 1, until_s)
            except StageFailure as failure:
                errors[i] = str(failure)
        return scores, errors

    def _allows_all(self, scores: F8) -> bool:
        """Whether every score is a number below every cut: both are false as soon as one is NaN."""
        least, most = np.minimum.reduce(scores), np.maximum.reduce(scores)
        return bool(least > -math.inf and most < self.lowest_cut)

    def _judge(self, scores: F8, errors: dict[int, str]) -> tuple[F8, Verdicts, dict[int, str]]:
        """The scores, NaN where one is no number, with an entry in `errors` for each; and the verdicts."""
        scores = np.where(np.isneginf(scores), np.nan, scores)
        for i in np.flatnonzero(np.isnan(scores)):
            errors.setdefault(int(i), f"{self.name}: score is not a number")
        verdicts = np.zeros(len(scores), np.int8)
        for verdict, cut in self.cuts.items():
            np.maximum(verdicts, np.where(scores >= cut, np.int8(verdict), np.int8(0)), out=verdicts)
        if errors:
            verdicts[list(errors)] = self.on_error
        return scores, verdicts, errors

    def possible_verdicts(self) -> list[Verdict]:
        """The verdicts that a score of `score_range` can get, ascending."""
        least, most = self.score_range
        scores = [score for score in (least, *self.cuts.values(), most) if least <= score <= most]
        _, verdicts, _ = self._judge(np.array(scores), {})
        return [VERDICT_BY_VALUE[value] for value in sorted(set(verdicts.tolist()))]

    def retry_after_s(self, score: float) -> float | None:
        """Seconds until a refused score is below the cut again, if it decreases with time; else None."""
        if self.retry_scale_s is None or not np.isfinite(score):
            return None
        return max(0.0, (score - self.cuts[Verdict.REFUSE]) * self.retry_scale_s)


def _no_prefetch(batch: Batch) -> None:
    """For guards that measure nothing before the model has answered."""


@dataclass(frozen=True, slots=True)
class FeatureStage:
    """A guard that reads the outputs of `model`, with a substitute for the rows that it did not answer.

    `without_features`: a second stage that needs the input alone, or a verdict to assume. The model's pass
    runs before the guard's own budget starts, under the model's budget: all guards and the rung share it.
    `prefetch` measures what needs no answer while the model runs; an error there is ignored, because it
    occurs again when the guard reads the measure.
    """

    full: Stage[Batch]
    model: str
    without_features: Stage[Batch] | Verdict
    prefetch: Callable[[Batch], None] = _no_prefetch
    name: str = field(init=False)
    reason: Reason = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.full.name)
        object.__setattr__(self, "reason", self.full.reason)

    def retry_after_s(self, score: float) -> float | None:
        return self.full.retry_after_s(score)

    async def assess(self, batch: Batch, until_s: float) -> Assessment:
        """A verdict for every row. Never raises."""
        answer = batch.known(self.model) or await self._run_model(batch)
        if answer.all_ok:
            return await self.full.assess(batch, until_s)
        failed = np.flatnonzero(~answer.ok)
        input_only = await self._assess_input_only(batch.take(failed), answer.take(failed), until_s)
        if len(failed) == len(batch):
            return input_only
        answered = np.flatnonzero(answer.ok)
        return _merge(
            len(batch),
            (answered, await self.full.assess(batch.take(answered), until_s)),
            (failed, input_only),
        )

    async def _run_model(self, batch: Batch) -> Forward:
        batch.start_pass(self.model)
        with contextlib.suppress(Exception):
            self.prefetch(batch)
        return await batch.run(self.model)

    async def _assess_input_only(self, batch: Batch, answer: Forward, until_s: float) -> Assessment:
        """A verdict for rows that the model did not answer; a row that it cannot take gets no assumed one."""
        n = len(batch)
        if isinstance(self.without_features, Stage):
            found = await self.without_features.assess(batch, until_s)
            return found._replace(input_only_rows=frozenset(range(n)))
        verdicts = np.full(n, self.without_features, np.int8)
        if answer.invalid is not None:
            verdicts[answer.invalid] = ASSUMED_OF_INVALID
        errors = dict.fromkeys(range(n), answer.error or "no answer")
        return Assessment(self.name, np.full(n, np.nan), verdicts, False, self.full.enforce, 0.0, errors)


def _merge(n: int, *parts: tuple[RowIndices, Assessment]) -> Assessment:
    """Assessments of disjoint rows of one batch as one."""
    scores, verdicts = np.full(n, np.nan), np.zeros(n, np.int8)
    errors: dict[int, str] = {}
    input_only_rows: set[int] = set()
    for rows, part in parts:
        scores[rows], verdicts[rows] = part.scores, part.verdicts
        errors |= {int(rows[i]): error for i, error in part.errors.items()}
        input_only_rows |= {int(rows[i]) for i in part.input_only_rows}
    first = parts[0][1]
    all_allowed = all(part.all_allowed for _, part in parts)
    elapsed_s = sum(part.elapsed_s for _, part in parts)
    return Assessment(
        first.stage,
        scores,
        verdicts,
        all_allowed,
        first.enforced,
        elapsed_s,
        errors,
        frozenset(input_only_rows),
    )
