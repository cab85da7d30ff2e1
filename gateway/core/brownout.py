"""What a row gets that the pipeline has no room for: the fallback's answer where that is cheap, or a refusal.

    level     a row is decided by                            while
    full      all guards, the first rung, then the others    it finds room in the limit (`row_limit.py`)
    fallback  guards in their input-only form, rung 1 on     it does not, and the event loop has time to spare
    refused   nothing: 503 with Retry-After                  there is no room for that either

It is a brownout (Klein et al., ICSE 2014) in which each row takes the step for itself. So the first rung
stays at its capacity, rows of the highest priorities and of callers below their share keep it, and there is
nothing to switch back afterwards. A row that steps down ends as one does whose first rung has an open
circuit: the decision graph has its paths, and the certificate covers the input-only forms. No guard is left
out at any level, since no certificate covers that. Where no other rung answers it either, it is refused, to
be sent again: reviewers get what guards and checks defer, not what there was no room for.

Where the event loop itself is what is overloaded, a fallback's answer costs as much of it as the first
rung's, and would take its place: then rows are refused. `SpareTime` tells the two apart, with hysteresis.

Below these, `deferral_cap.py` bounds what reviewers get of rows that no model answered, and a stop ends all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np

from gateway.core.batch import Batch
from gateway.core.batching import Batcher
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Tensors, Verdict
from gateway.core.deferral_cap import DeferralCap
from gateway.core.errors import BudgetExceeded
from gateway.core.model import Forward, Model
from gateway.core.pipeline import Pipeline
from gateway.core.row_limit import LOWEST, RowLimit
from gateway.core.stage import FeatureStage, Stage

BUSY_FROM, BUSY_UNTIL = 0.8, 0.5
"""Shares of time in which an event loop computes: it has time to spare below the second, until the first."""
MEASURED_S: Final = 0.25
LEVEL_HELD_S: Final = 2.0
"""For so long after the last row of a level the gateway is said to be there."""


class Level(StrEnum):
    """The lowest level at which rows were decided lately."""

    FULL = "full"
    FALLBACK = "fallback"
    REFUSED = "refused"


class SpareTime:
    """Whether an event loop has time to spare: to be asked in its thread.

    cpu_s: seconds that this thread has computed for.
    """

    def __init__(self, cpu_s: Callable[[], float] = time.thread_time) -> None:
        self._cpu_s, self._any = cpu_s, False
        self._began_s, self._began_cpu_s = now_s(), cpu_s()

    def any(self) -> bool:
        """As measured over the last `MEASURED_S` or longer. Cost: below 1 us."""
        now = now_s()
        if (passed_s := now - self._began_s) >= MEASURED_S:
            cpu_s = self._cpu_s()
            share = (cpu_s - self._began_cpu_s) / passed_s
            self._any = share < (BUSY_FROM if self._any else BUSY_UNTIL)
            self._began_s, self._began_cpu_s = now, cpu_s
        return self._any


class _NotAsked(Model):
    """A model that is left out: as one with an open circuit, for every row."""

    __slots__ = ()

    async def ask(self, inputs: Tensors, n: int, until_s: float, principals: Sequence[str] = ()) -> Tensors:
        raise BudgetExceeded(self._why)

    async def forward(
        self, inputs: Tensors, n: int, until_s: float, principals: Sequence[str] = ()
    ) -> Forward:
        return Forward({}, np.zeros(n, bool), False, 0.0, self._why)

    @property
    def _why(self) -> str:
        return f"{self.name}: not asked, more rows wait than it can answer"


def can_step_down(pipeline: Pipeline) -> bool:
    """Whether another rung may answer rows of which the first was not asked."""
    return len(pipeline.rungs) > 1 and all(
        isinstance(guard.without_features, Stage) or guard.without_features <= Verdict.DEGRADE
        for guard in pipeline.guards
        if isinstance(guard, FeatureStage) and guard.full.enforce
    )


def stepped_down(pipeline: Pipeline) -> Pipeline:
    """The same pipeline, whose first rung is not asked. Cost: 10 us."""
    first = pipeline.rungs[0]
    model = _NotAsked(first.name, first.model.predictor, first.model.budget_s)
    rungs = (replace(first, model=model), *pipeline.rungs[1:])
    return replace(pipeline, rungs=rungs, cap=DeferralCap(0.0, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """The room for rows of one priority, at both levels."""

    brownout: Brownout
    priority: int

    @property
    def free(self) -> int:
        """How many more requests fit now, of as many rows as they have had lately."""
        levels = [self.brownout.full]
        if self.brownout.has_spare_time():
            levels.append(self.brownout.below.limit)
        return sum(max(0, limit.room_of(self.priority).free) for limit in levels)

    @property
    def idle(self) -> bool:
        """Whether at least half of the room at the full level is free."""
        return self.brownout.full.room_of(self.priority).idle


class Brownout:
    """Steps rows down that the limit of the whole pipeline has no room for.

    full: that limit; below: decides rows that step down, with a limit of its own; fallback_answers: whether
    the circuit of any rung but the first is closed. For one event loop, once it runs.
    """

    def __init__(self, full: RowLimit, below: Batcher, fallback_answers: Callable[[], bool]) -> None:
        self.full, self.below, self._fallback_answers = full, below, fallback_answers
        self._rooms = tuple(Room(self, 1 + i) for i in range(LOWEST))
        self._spare_time: SpareTime | None = None
        self._stepped_s = -math.inf
        self.stepped_down_total = 0

    def has_spare_time(self) -> bool:
        """Whether rows may step down at all now."""
        if self._spare_time is None:
            self._spare_time = SpareTime()
        return self._spare_time.any() and self._fallback_answers()

    def has_room(self, pipeline: Pipeline, caller: str, rows: int, left_s: float, priority: int) -> bool:
        """Whether these rows may step down now, and can be answered in `left_s` seconds. Cost: 3 us."""
        return (
            can_step_down(pipeline)
            and self.has_spare_time()
            and self.below.has_room(caller, rows, left_s, priority)
        )

    def room_of(self, priority: int) -> Room:
        """The room of a priority, from 1, the highest."""
        return self._rooms[min(priority, LOWEST) - 1]

    def step_down(self, batch: Batch, priority: int) -> Coroutine[Any, Any, list[Decision]] | None:
        """The decisions on one request's rows without the first rung; None if there is no room for them."""
        assert batch.pipeline is not None, "the gateway sets it"
        caller, left_s = batch.principals[0], batch.until_s - now_s()
        if not self.has_room(batch.pipeline, caller, len(batch), left_s, priority):
            return None
        self._stepped_s = now_s()
        self.stepped_down_total += len(batch)
        return self.below.decide(batch, priority)

    def level(self) -> Level:
        """The lowest level at which rows were decided in the last `LEVEL_HELD_S` seconds."""
        since_s = now_s() - LEVEL_HELD_S
        if self.full.refused_s >= since_s:
            return Level.REFUSED
        return Level.FALLBACK if self._stepped_s >= since_s else Level.FULL
