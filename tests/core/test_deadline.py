"""A part's budget and a row's deadline hold, whether the part awaits, holds the event loop, or does both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from gateway.core import deadline
from gateway.core.batch import Batch
from gateway.core.deadline import LOOP_LATE_S, call_within
from gateway.core.decision import Reason, Verdict
from gateway.core.errors import BudgetExceeded, GuardFailed
from gateway.core.rows import F8
from gateway.core.stage import Stage
from tests.support.core_parts import FakeTimeLoop, batch_of, run

BUDGET_S, BLOCKED_S, UNTIL_S = 0.001, 0.01, 1e6
Part = Callable[[int], Awaitable[int]]


def work() -> None:
    """Takes CPU time."""
    until_s = time.thread_time() + BLOCKED_S
    while time.thread_time() < until_s:
        pass


def block() -> None:
    """Takes none."""
    time.sleep(BLOCKED_S)


async def works(argument: int) -> int:
    work()
    return argument


async def blocks(argument: int) -> int:
    block()
    return argument


async def waits_then_blocks(argument: int) -> int:
    await asyncio.sleep(0)
    block()
    return argument


async def answers_at_once(argument: int) -> int:
    return argument


def called(part: Part, budget_s: float) -> int:
    async def main() -> int:
        return await call_within("part", part, 7, budget_s, UNTIL_S, GuardFailed)  # type: ignore[arg-type]

    return run(main)


@pytest.mark.parametrize("part", [blocks, waits_then_blocks])
def test_a_part_that_holds_the_event_loop_for_much_longer_than_its_budget_is_too_late(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "TOLERANCE_S", 0.0)
    with pytest.raises(BudgetExceeded, match=r"^part: answered after [0-9.]+ s, which is too late$"):
        called(part, BUDGET_S)


def test_a_part_that_takes_more_cpu_time_than_its_budget_is_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadline, "TOLERANCE_S", 60.0)
    with pytest.raises(BudgetExceeded, match="which is too late"):
        called(works, BUDGET_S)


def test_a_part_is_not_too_late_for_what_other_work_of_the_machine_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadline, "TOLERANCE_S", 60.0)
    for part in (blocks, waits_then_blocks):
        assert called(part, BUDGET_S) == 7


@pytest.mark.parametrize("part", [works, blocks, waits_then_blocks, answers_at_once])
def test_a_part_that_answers_within_its_budget_is_heard(part: Part) -> None:
    assert called(part, 60.0) == 7


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), ValueError("x")])
@pytest.mark.parametrize("waits_first", [False, True])
def test_whatever_a_part_raises_is_its_failure_and_ends_no_process(
    raised: BaseException, waits_first: bool
) -> None:
    async def part(_: int) -> int:
        if waits_first:
            await asyncio.sleep(0)
        raise raised

    with pytest.raises(GuardFailed, match=f"^part: {type(raised).__name__}"):
        called(part, 60.0)


@pytest.mark.parametrize("on_error", [Verdict.DEFER, Verdict.REFUSE, Verdict.ALLOW])
def test_rows_of_a_guard_that_takes_too_long_get_the_verdict_for_an_error(on_error: Verdict) -> None:
    class Slow:
        async def score(self, rows: Batch, /) -> F8:
            work()
            return np.zeros(len(rows))

    stage: Stage[Batch] = Stage("slow", Slow(), {Verdict.REFUSE: 1.0}, Reason.ABSTAINED, BUDGET_S, on_error)
    found = run(lambda: stage.assess(batch_of([0.0, 1.0]), UNTIL_S))
    assert found.verdicts.tolist() == [on_error] * 2
    assert sorted(found.errors) == [0, 1]


@pytest.mark.parametrize(("late_s", "answered"), [(2 * LOOP_LATE_S, True), (LOOP_LATE_S / 2, False)])
def test_an_answer_that_is_there_is_taken_only_where_the_event_loop_was_late(
    late_s: float, answered: bool
) -> None:
    """A thread answers while the loop is held up until the budget has ended, for longer or shorter."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeTimeLoop)

        async def part(_: None) -> int:
            answer: asyncio.Future[int] = loop.create_future()
            loop.call_later(0.01, _hold_and_answer, answer)
            return await answer

        def _hold_and_answer(answer: asyncio.Future[int]) -> None:
            loop.now += 0.02 + late_s
            loop.call_soon(loop.call_soon, answer.set_result, 1)  # as from a thread, which takes two rounds

        asked = call_within("part", part, None, 0.03, loop.time() + 9.0, GuardFailed)
        if answered:
            assert await asked == 1
        else:
            with pytest.raises(BudgetExceeded):
                await asked

    run(main)
