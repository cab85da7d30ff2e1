"""Rows that the pipeline has no room for step down to the fallback where that is cheap, and only then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from gateway.core.batch import Batch
from gateway.core.batch_size import BatchSize
from gateway.core.batching import Batcher, DecideBatch, Overflow
from gateway.core.brownout import (
    BUSY_FROM,
    BUSY_UNTIL,
    LEVEL_HELD_S,
    MEASURED_S,
    Brownout,
    Level,
    SpareTime,
    can_step_down,
    stepped_down,
)
from gateway.core.deadline import now_s
from gateway.core.decision import Degraded, Outcome, Reason, Refused, Served, Tensors, Verdict
from gateway.core.model import Model
from gateway.core.pipeline import CAP_RETRY_S, Pipeline, Rung
from gateway.core.row_limit import FIRST_ROWS, RowLimit
from gateway.core.stage import FeatureStage, Stage
from tests.support.core_parts import FakeGuard, FakeReview, run

DEADLINE_S = 100.0


@dataclass
class Doubles:
    """A model that answers y = 2 x, and remembers how many rows it was asked for."""

    asked: list[int] = field(default_factory=list)
    broken: bool = False

    async def predict(self, inputs: Tensors, /) -> Tensors:
        if self.broken:
            raise ValueError("broken on purpose")
        self.asked.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2}


class Parts:
    """A pipeline of two rungs with the two queues before it. Made on a running loop."""

    def __init__(self, assumed: Verdict | None = None) -> None:
        self.first, self.second, self.fallback_answers = Doubles(), Doubles(), True
        stage: Stage[Batch] = Stage(
            "g", FakeGuard(), {Verdict.REFUSE: 1e9}, Reason.ABSTAINED, 1.0, Verdict.REFUSE
        )
        guard = FeatureStage(stage, "m0", stage if assumed is None else assumed)
        rungs = (Rung(Model("m0", self.first, 1.0)), Rung(Model("m1", self.second, 1.0)))
        self.pipeline = Pipeline("p@1#0", (guard,), rungs, FakeReview(), 1.0)
        self.limit = RowLimit(DEADLINE_S, BatchSize(8))
        below = self._batcher(
            RowLimit(DEADLINE_S, BatchSize(8)), lambda b: stepped_down(self.pipeline).answer(b)
        )
        self.brownout = Brownout(self.limit, below, lambda: self.fallback_answers)
        self.batcher = self._batcher(self.limit, self.pipeline.answer, self.brownout.step_down)
        assert not self.brownout.has_spare_time(), "nothing is known of the event loop yet"

    def _batcher(
        self,
        limit: RowLimit,
        answer: DecideBatch,
        overflow: Overflow = lambda batch, priority: None,
    ) -> Batcher:
        return Batcher(answer, lambda ids: None, limit, BatchSize(8), 10_000, overflow)

    async def outcome(self, priority: int = 1) -> Outcome:
        batch = Batch(("r",), ("ada",), {"x": np.ones(1)}, (now_s() + DEADLINE_S,), pipeline=self.pipeline)
        (decision,) = await self.batcher.decide(batch, priority)
        return decision.outcome


def fill(limit: RowLimit, priority: int = 1) -> None:
    """Rows of the same caller, and one of another's, so that neither has less than its share."""
    limit.take("ada", 2 * FIRST_ROWS, priority)
    limit.take("bob", 1, priority)


def test_a_row_that_finds_room_is_answered_by_the_first_rung() -> None:
    async def main() -> None:
        parts = Parts()
        await asyncio.sleep(MEASURED_S)
        assert isinstance(await parts.outcome(), Served)
        assert (parts.first.asked, parts.second.asked) == ([1], [])
        assert parts.brownout.level() is Level.FULL

    run(main)


def test_a_row_without_room_is_answered_by_the_fallback_and_the_first_rung_is_not_asked() -> None:
    async def main() -> None:
        parts = Parts()
        await asyncio.sleep(MEASURED_S)
        fill(parts.limit)
        outcome = await parts.outcome()
        assert isinstance(outcome, Degraded)
        assert (outcome.by, outcome.reason, outcome.output["y"].tolist()) == ("m1", Reason.UNAVAILABLE, [2.0])
        assert (parts.first.asked, parts.second.asked) == ([], [1])
        assert (parts.brownout.stepped_down_total, parts.brownout.level()) == (1, Level.FALLBACK)
        await asyncio.sleep(LEVEL_HELD_S + 0.1)
        assert parts.brownout.level() is Level.FULL

    run(main)


def test_a_row_is_refused_where_the_fallback_has_no_room_either() -> None:
    async def main() -> None:
        parts = Parts()
        await asyncio.sleep(MEASURED_S)
        for limit in (parts.limit, parts.brownout.below.limit):
            fill(limit)
        assert isinstance(await parts.outcome(), Refused)
        assert (parts.brownout.stepped_down_total, parts.brownout.level()) == (0, Level.REFUSED)

    run(main)


def test_lower_priorities_step_down_first() -> None:
    async def main() -> None:
        parts = Parts()
        await asyncio.sleep(MEASURED_S)
        parts.limit.take("ada", int(0.5 * FIRST_ROWS), 4)
        parts.limit.take("bob", 1, 4)
        assert [type(await parts.outcome(priority)) for priority in (1, 4)] == [Served, Degraded]

    run(main)


def test_a_row_is_refused_where_the_fallback_has_an_open_circuit() -> None:
    async def main() -> None:
        parts = Parts()
        await asyncio.sleep(MEASURED_S)
        fill(parts.limit)
        parts.fallback_answers = False
        assert isinstance(await parts.outcome(), Refused)
        assert parts.second.asked == []

    run(main)


@pytest.mark.parametrize("assumed", [Verdict.DEFER, Verdict.REFUSE])
def test_a_row_is_refused_where_a_guard_without_input_only_form_would_not_let_it_pass(
    assumed: Verdict,
) -> None:
    async def main() -> None:
        parts = Parts(assumed)
        await asyncio.sleep(MEASURED_S)
        fill(parts.limit)
        assert isinstance(await parts.outcome(), Refused)
        assert (parts.second.asked, parts.brownout.stepped_down_total) == ([], 0)

    run(main)


def test_reviewers_do_not_get_what_there_was_no_room_for() -> None:
    async def main() -> None:
        parts = Parts()
        await asyncio.sleep(MEASURED_S)
        parts.second.broken = True
        fill(parts.limit)
        assert await parts.outcome() == Refused(Reason.UNAVAILABLE, CAP_RETRY_S)

    run(main)


def test_a_pipeline_of_one_rung_cannot_step_down() -> None:
    async def main() -> None:
        pipeline = Parts().pipeline
        assert can_step_down(pipeline)
        assert not can_step_down(Pipeline("p@1#0", (), pipeline.rungs[:1], None, 1.0))

    run(main)


def test_an_event_loop_has_time_to_spare_between_two_shares() -> None:
    async def main() -> None:
        computed_s = 0.0
        spare = SpareTime(lambda: computed_s)

        async def computes(share: float) -> bool:
            nonlocal computed_s
            computed_s += share * MEASURED_S
            await asyncio.sleep(MEASURED_S)
            return spare.any()

        between = (BUSY_FROM + BUSY_UNTIL) / 2
        shares = (between, BUSY_UNTIL - 0.1, between, BUSY_FROM + 0.1, between, BUSY_UNTIL - 0.1)
        assert [await computes(share) for share in shares] == [False, True, True, False, False, True]

    run(main)


def test_the_room_is_that_of_both_levels_while_rows_may_step_down() -> None:
    async def main() -> None:
        parts = Parts()
        room = parts.brownout.room_of(1)
        assert room is parts.brownout.room_of(1), "connections are held by their room"
        assert (room.free, room.idle) == (FIRST_ROWS, True)
        await asyncio.sleep(MEASURED_S)
        assert room.free == 2 * FIRST_ROWS
        fill(parts.limit)
        assert (room.free, room.idle) == (FIRST_ROWS, False)

    run(main)
