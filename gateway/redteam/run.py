"""One attack on one row: every query counted, the first alarm noted, and an end at success or at a limit.

An attack asks and moves until `Over` is raised. It succeeds with the first query that lies within the radius
and is answered, by whichever rung, with another class than the row itself was.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from gateway.core.rows import F8
from gateway.redteam.answers import SERVED, Answer, Model
from gateway.redteam.space import Space, Within

Ended: TypeAlias = Literal["success", "queries", "time", "stuck", "unfit", "interrupted"]
LONGEST_WAIT_S = 5.0


class Over(Exception):
    """The run has ended. Caught by `carry_out` alone."""

    def __init__(self, why: Ended) -> None:
        super().__init__(why)
        self.why: Ended = why


@dataclass(frozen=True, slots=True)
class Limits:
    """queries: of one run; until_s: by `time.monotonic`; obey: whether Retry-After is waited for."""

    queries: int
    until_s: float
    obey: bool = True

    @property
    def left_s(self) -> float:
        return self.until_s - time.monotonic()


@dataclass(slots=True)
class Tally:
    """What the queries of one run came to. first_alarm: the number of a query, from 1.

    waits: whether it waits for Retry-After.
    """

    queries: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    first_alarm: int | None = None
    waited_s: float = 0.0
    waits: bool = True

    def add(self, answer: Answer) -> None:
        """Counts one query."""
        self.queries += 1
        self.outcomes[answer.outcome] += 1
        if answer.outcome != SERVED:
            self.reasons[answer.reason] += 1
        if answer.alarming and self.first_alarm is None:
            self.first_alarm = self.queries


def ask_counted(model: Model, row: F8, limits: Limits, tally: Tally) -> Answer:
    """One row's answer. A refusal that asks to wait is waited for, and the row sent once more.

    Where that does not help, as with a full share of the review queue, the run waits no more.
    Raises:  Over at a limit; Problems.
    """
    answer = sent(model, row, limits, tally)
    wait_s = min(answer.retry_after_s, LONGEST_WAIT_S)
    if wait_s and limits.obey and tally.waits:
        tally.waited_s += wait_s
        time.sleep(max(0.0, min(wait_s, limits.left_s)))
        answer = sent(model, row, limits, tally)
        tally.waits = answer.retry_after_s == 0
    return answer


def sent(model: Model, row: F8, limits: Limits, tally: Tally) -> Answer:
    """One query, counted. Raises Over, Problems."""
    if tally.queries >= limits.queries:
        raise Over("queries")
    if limits.left_s <= 0:
        raise Over("time")
    answer = model.ask(row[None])[0]
    tally.add(answer)
    return answer


class Run:
    """The attacker's view of one row: queries, distances, and nothing else of the model."""

    def __init__(self, model: Model, space: Space, within: Within, limits: Limits, start: F8) -> None:
        self.model, self.space, self.within, self.limits = model, space, within, limits
        self.start = space.clip(start)
        self.tally = Tally()
        self.label = -1
        self.nearest = float("inf")
        """The distance of the nearest row that was answered with another class."""
        self.by = ""
        """How the row that succeeded ended: served or degraded."""

    def begin(self, expected: int | None) -> Answer:
        """Asks the row itself. Raises Over: it is not served, or not with the class that is expected."""
        answer = ask_counted(self.model, self.start, self.limits, self.tally)
        if answer.outcome != SERVED or answer.label is None or expected not in (None, answer.label):
            raise Over("unfit")
        self.label = answer.label
        return answer

    def ask(self, row: F8) -> Answer:
        """One row's answer. Raises Over at success or a limit."""
        row = self.space.clip(row)
        answer = ask_counted(self.model, row, self.limits, self.tally)
        self._note(row, answer)
        return answer

    def ask_all(self, rows: F8) -> list[Answer]:
        """Those of float64[n, d], as many at once as the target takes. Raises Over."""
        step = self.model.rows_a_request
        if step == 1:
            return [self.ask(row) for row in rows]
        answers: list[Answer] = []
        for at in range(0, len(rows), step):
            part = self.space.clip(rows[at : at + min(step, self.limits.queries - self.tally.queries)])
            if not len(part):
                raise Over("queries")
            if self.limits.left_s <= 0:
                raise Over("time")
            told = self.model.ask(part)
            for answer in told:
                self.tally.add(answer)
            for row, answer in zip(part, told, strict=True):
                self._note(row, answer)
            answers += told
        return answers

    def wrong(self, row: F8) -> bool:
        """Whether a row is answered with another class. A row without an answer is not."""
        return self.is_wrong(self.ask(row))

    def is_wrong(self, answer: Answer) -> bool:
        return answer.label is not None and answer.label != self.label

    def distance(self, row: F8) -> float:
        """From the row that the attack began with."""
        return self.within.distance(self.space.clip(row), self.start)

    def _note(self, row: F8, answer: Answer) -> None:
        if not self.is_wrong(answer):
            return
        away = self.within.distance(row, self.start)
        self.nearest = min(self.nearest, away)
        if self.within.holds(away):
            self.by = answer.outcome
            raise Over("success")


def margin(answer: Answer, label: int) -> float:
    """The label's probability less the largest other one, -1 to 1; NaN without an answer."""
    if answer.p is None:
        return float("nan") if answer.label is None else (1.0 if answer.label == label else -1.0)
    others = np.delete(answer.p, label)
    return float(answer.p[label] - others.max())
