"""Requests share passes: who waits, who goes, who fails, and that no row ever meets another row's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.batch import Batch
from gateway.core.batch_size import MOST_LANES as LANES
from gateway.core.batch_size import BatchSize
from gateway.core.batching import Batcher, DecideBatch, concatenate
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Deferred, Outcome, Reason, Refused, Served, Tensors
from gateway.core.pipeline import BatchResult
from gateway.core.row_limit import RowLimit
from tests.support.core_parts import FakeTimeLoop, run


@dataclass
class Pass:
    """A pipeline that answers y = x after `takes_s`, and remembers what it was asked together."""

    takes_s: float = 1.0
    raises: bool = False
    seen: list[tuple[str, ...]] = field(default_factory=list)

    async def decide(self, batch: Batch) -> list[Decision]:
        self.seen.append(batch.ids)
        await asyncio.sleep(self.takes_s)
        if self.raises:
            raise RuntimeError("a defect on purpose")
        x = batch.inputs["x"]
        return [
            Decision(row, Served({"y": x[i : i + 1]}, "m"), policy="p") for i, row in enumerate(batch.ids)
        ]

    @property
    def sizes(self) -> list[int]:
        return [len(ids) for ids in self.seen]


def rows(name: str, *x: float, within_s: float = 100.0, inputs: Tensors | None = None) -> Batch:
    """One request: rows `name0`, `name1`..., due in `within_s`."""
    n = len(x)
    return Batch(
        tuple(f"{name}{i}" for i in range(n)),
        (name,) * n,
        inputs or {"x": np.array(x, np.float64)},
        (now_s() + within_s,) * n,
    )


def none_withdrawn(ids: Sequence[str]) -> None:
    raise AssertionError(f"{ids}: nothing was deferred in vain")


def batcher(
    decide: Callable[[Batch], Awaitable[list[Decision]]],
    batch: int = 128,
    queue: int = 1000,
    withdraw: Callable[[Sequence[str]], None] = none_withdrawn,
) -> Batcher:
    async def answer(batch: Batch) -> BatchResult:
        return BatchResult(await decide(batch))

    return practised(answer, withdraw, batch, queue)


def practised(
    answer: DecideBatch, withdraw: Callable[[Sequence[str]], None], batch: int, queue: int
) -> Batcher:
    """A batcher that has found out that the largest batch takes no longer than any."""
    size = BatchSize(batch)
    while size.rows < batch:
        size.observe(size.rows, 0.0, 1.0, now_s())
    return Batcher(answer, withdraw, RowLimit(1e6, size), size, queue)


async def busy(to: Batcher) -> list[asyncio.Task[list[Decision]]]:
    """One request in each lane, 0.1 s ago: what comes now has to wait."""
    tasks = []
    for n in range(LANES):
        tasks.append(asyncio.create_task(to.decide(rows(f"first{n}.", 0.0))))
        await asyncio.sleep(0.1 / LANES)
    return tasks


FIRST = [(f"first{n}.0",) for n in range(LANES)]


def answers(decisions: Sequence[Decision]) -> list[float]:
    told = []
    for decision in decisions:
        assert isinstance(decision.outcome, Served)
        told += decision.outcome.output["y"].tolist()
    return told


def outcomes(decisions: Sequence[Decision]) -> list[Outcome]:
    return [decision.outcome for decision in decisions]


def test_an_idle_gateway_decides_at_once_in_a_batch_of_one() -> None:
    async def main() -> None:
        one = Pass(takes_s=0)
        start_s = now_s()
        assert answers(await batcher(one.decide).decide(rows("a", 1.0))) == [1.0]
        assert now_s() - start_s < 1e-3
        assert one.sizes == [1]

    run(main)


def test_while_one_batch_is_decided_the_next_one_collects() -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide)
        requests = [rows(f"r{i:02}.", float(i), float(-i)) for i in range(50)]
        got = await asyncio.gather(*(to.decide(request) for request in requests))
        assert one.sizes in ([2, 98], [100]), "fifty requests took more than two passes"
        assert [answers(one) for one in got] == [[float(i), float(-i)] for i in range(50)]
        assert to.queued_rows == 0

    run(main)


def test_a_batch_has_the_rows_of_its_requests_in_the_order_they_came() -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide)
        first = await busy(to)
        later = [asyncio.create_task(to.decide(rows(name, 1.0, 2.0))) for name in "bcd"]
        await asyncio.gather(*first, *later)
        assert one.seen == [*FIRST, ("b0", "b1", "c0", "c1", "d0", "d1")]

    run(main)


def test_a_lower_priority_waits_behind_and_never_gets_ahead() -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide, batch=2)
        first = await busy(to)
        asked = [("late", 99), ("b", 2), ("c", 1), ("d", 3), ("e", 1), ("later", 10**30)]
        later = [asyncio.create_task(to.decide(rows(name, 1.0), level)) for name, level in asked]
        await asyncio.gather(*first, *later)
        assert one.seen == [*FIRST, ("c0", "e0"), ("b0", "d0"), ("late0", "later0")]

    run(main)


def test_a_request_is_never_split_and_a_batch_never_too_large() -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide, batch=10)
        first = await busy(to)
        later = [
            asyncio.create_task(to.decide(rows(name, *[1.0] * n)))
            for name, n in zip("bcde", (4, 4, 4, 9), strict=True)
        ]
        await asyncio.gather(*first, *later)
        assert one.sizes == [*[1] * LANES, 8, 4, 9]

    run(main)


def test_a_request_larger_than_a_batch_has_one_to_itself() -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide, batch=3)
        got = await asyncio.gather(to.decide(rows("a", *range(7))), to.decide(rows("b", 9.0)))
        assert one.sizes == [7, 1]
        assert [answers(one) for one in got] == [[float(i) for i in range(7)], [9.0]]

    run(main)


def test_more_than_may_wait_is_refused_at_once() -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide, batch=2, queue=4)
        taken = [asyncio.create_task(to.decide(rows(name, 1.0, 2.0))) for name in "ab"]
        await asyncio.sleep(0)
        start_s = now_s()
        refused = await to.decide(rows("c", 3.0))
        assert now_s() == start_s
        assert outcomes(refused) == [Refused(Reason.UNAVAILABLE, retry_after_s=2.0)]
        assert [decision.id for decision in refused] == ["c0"]
        assert [answers(await task) for task in taken] == [[1.0, 2.0], [1.0, 2.0]]
        assert answers(await to.decide(rows("d", 4.0))) == [4.0], "there is room again"

    run(main)


def test_rows_that_are_being_decided_do_not_count_as_waiting() -> None:
    async def main() -> None:
        to = batcher(Pass().decide, queue=2)
        first = asyncio.create_task(to.decide(rows("a", 1.0, 2.0)))
        await asyncio.sleep(0.5)
        assert to.queued_rows == 0
        assert answers(await to.decide(rows("b", 3.0, 4.0))) == [3.0, 4.0]
        await first

    run(main)


def test_a_deadline_that_passes_in_the_queue_ends_there_and_costs_no_pass() -> None:
    async def main() -> None:
        one = Pass(takes_s=5.0)
        to = batcher(one.decide)
        first = await busy(to)
        start_s = now_s()
        late = await to.decide(rows("b", 2.0, 3.0, within_s=1.0))
        assert now_s() - start_s == pytest.approx(1.0)
        assert outcomes(late) == [Refused(Reason.DEADLINE)] * 2
        assert [answers(await task) for task in first] == [[0.0]] * LANES
        await to.drain()
        assert one.seen == FIRST
        assert to.queued_rows == 0

    run(main)


def test_a_deadline_that_has_passed_already_is_refused() -> None:
    async def main() -> None:
        to = batcher(Pass().decide)
        assert outcomes(await to.decide(rows("a", 1.0, within_s=-1.0))) == [Refused(Reason.DEADLINE)]
        await to.drain()

    run(main)


def test_requests_of_one_deadline_end_together_and_leave_no_timer_behind() -> None:
    async def main() -> None:
        to, until_s = batcher(Pass(takes_s=50.0).decide), now_s() + 2.0
        requests = [replace(rows(name, 1.0), deadlines_s=(until_s,)) for name in "abc"]
        first, *others = [asyncio.create_task(to.decide(one)) for one in requests]
        await asyncio.sleep(1.0)
        first.cancel()
        assert [outcomes(await one) for one in others] == [[Refused(Reason.DEADLINE)]] * 2
        assert now_s() == pytest.approx(until_s)
        assert to._overdue == {}
        late = await to.decide(replace(rows("late", 1.0), deadlines_s=(until_s,)))
        assert outcomes(late) == [Refused(Reason.DEADLINE)]
        assert to._overdue == {}

    run(main)


def test_a_deadline_that_passes_while_its_batch_is_decided_disturbs_no_other_request() -> None:
    async def main() -> None:
        one = Pass(takes_s=5.0)
        to = batcher(one.decide)
        first = await busy(to)
        patient = asyncio.create_task(to.decide(rows("b", 1.0)))
        hasty = asyncio.create_task(to.decide(rows("c", 2.0, within_s=6.0)))
        also = asyncio.create_task(to.decide(rows("d", 3.0)))
        assert outcomes(await hasty) == [Refused(Reason.DEADLINE)]
        told = [answers(await task) for task in (*first, patient, also)]
        assert told == [[0.0]] * LANES + [[1.0], [3.0]]
        assert one.seen == [*FIRST, ("b0", "c0", "d0")]

    run(main)


@pytest.mark.parametrize("when", ["waits", "is decided"])
def test_a_caller_that_disconnects_disturbs_no_other_request(when: str) -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide)
        first = await busy(to)
        stays, goes, also = (asyncio.create_task(to.decide(rows(name, 7.0))) for name in "bcd")
        await asyncio.sleep(0.1 if when == "waits" else 1.0)
        goes.cancel()
        told = [answers(await task) for task in (*first, stays, also)]
        assert told == [[0.0]] * LANES + [[7.0], [7.0]]
        assert goes.cancelled()
        assert one.seen[LANES] == (("b0", "d0") if when == "waits" else ("b0", "c0", "d0"))
        assert to.queued_rows == 0

    run(main)


def test_callers_that_all_disconnect_leave_nothing_behind() -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide)
        tasks = [asyncio.create_task(to.decide(rows(name, 1.0))) for name in "abc"]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await to.drain()
        assert to.queued_rows == 0
        assert answers(await to.decide(rows("d", 4.0))) == [4.0]

    run(main)


def test_a_pipeline_that_raises_refuses_its_batch_and_the_next_one_works() -> None:
    async def main() -> None:
        one = Pass(raises=True)
        to = batcher(one.decide)
        first = await asyncio.gather(to.decide(rows("a", 1.0)), to.decide(rows("b", 2.0, 3.0)))
        assert [outcomes(got) for got in first] == [
            [Refused(Reason.UNAVAILABLE)],
            [Refused(Reason.UNAVAILABLE)] * 2,
        ]
        one.raises = False
        assert answers(await to.decide(rows("c", 4.0))) == [4.0]
        assert to.queued_rows == 0

    run(main)


def test_a_pipeline_that_cancels_itself_ends_by_the_deadline_and_the_next_batch_works() -> None:
    calls = []

    async def decide(batch: Batch) -> list[Decision]:
        calls.append(batch.ids)
        if len(calls) == 1:
            raise asyncio.CancelledError
        return await Pass().decide(batch)

    async def main() -> None:
        to = batcher(decide)
        (refused,) = outcomes(await to.decide(rows("a", 1.0, within_s=2.0)))
        assert isinstance(refused, Refused)
        assert answers(await to.decide(rows("b", 2.0))) == [2.0]

    run(main)


@pytest.mark.parametrize("change", [-1, 1], ids=["one too few", "one too many"])
def test_a_pipeline_that_loses_count_answers_no_request_with_another_ones_row(change: int) -> None:
    async def decide(batch: Batch) -> list[Decision]:
        good = await Pass().decide(batch)
        return good[:-1] if change < 0 else [good[0], *good]

    async def main() -> None:
        to = batcher(decide)
        first = asyncio.create_task(to.decide(rows("a", 0.0)))
        await asyncio.sleep(0.1)
        for got in await asyncio.gather(to.decide(rows("b", 1.0)), to.decide(rows("c", 2.0, 3.0)), first):
            assert got, "a caller without a decision"
            assert all(isinstance(outcome, Refused) for outcome in outcomes(got))

    run(main)


MIXED: list[Callable[[], Tensors]] = [
    lambda: {"x": np.zeros((1, 3))},
    lambda: {"x": np.zeros((1, 4))},
    lambda: {"x": np.zeros((1, 4), np.float32)},
    lambda: {"z": np.zeros((1, 4))},
    lambda: {"x": np.zeros((1, 4)), "z": np.zeros(1)},
]


def test_requests_of_another_form_cannot_poison_their_neighbours() -> None:
    """A model with an open size, or a reload between two requests: none fails for another one's shape."""

    async def decide(batch: Batch) -> list[Decision]:
        await asyncio.sleep(1.0)
        told = []
        for i, row in enumerate(batch.ids):
            output = {name: array[i : i + 1] for name, array in batch.inputs.items()}
            told.append(Decision(row, Served(output, "m")))
        return told

    async def main() -> None:
        to = batcher(decide)
        first = asyncio.create_task(to.decide(rows("a", 0.0)))
        await asyncio.sleep(0.1)
        requests = [rows(f"r{i}.", 0.0, inputs=form()) for i, form in enumerate([*MIXED, *MIXED])]
        start_s = now_s()
        for asked, got in zip(requests, await asyncio.gather(*map(to.decide, requests)), strict=True):
            (outcome,) = outcomes(got)
            assert isinstance(outcome, Served)
            assert {k: (a.dtype, a.shape) for k, a in outcome.output.items()} == {
                k: (a.dtype, a.shape) for k, a in asked.inputs.items()
            }
        await first
        assert now_s() - start_s <= 11, "one pass a form and its repetition is enough"

    run(main)


def test_draining_waits_for_everything_that_was_taken() -> None:
    async def main() -> None:
        one = Pass()
        to = batcher(one.decide, batch=1)
        tasks = [asyncio.create_task(to.decide(rows(name, 1.0))) for name in "abc"]
        await asyncio.sleep(0)
        await to.drain()
        assert [task.done() for task in tasks] == [True] * 3 or one.sizes == [1, 1, 1]
        assert [answers(await task) for task in tasks] == [[1.0]] * 3

    run(main)


def test_rows_that_go_to_a_person_keep_no_neighbour_waiting_and_count_as_queued_until_they_are_taken() -> (
    None
):
    async def answer(batch: Batch) -> BatchResult:
        """Odd values go to people, which takes ten seconds."""
        told = [
            Decision(row, Served({"y": batch.inputs["x"][i : i + 1]}, "m")) for i, row in enumerate(batch.ids)
        ]

        async def rest() -> BatchResult:
            await asyncio.sleep(10.0)
            return BatchResult(told)

        return BatchResult(
            [None if x % 2 else one for x, one in zip(batch.inputs["x"], told, strict=True)], rest
        )

    async def main() -> None:
        to = practised(answer, none_withdrawn, batch=8, queue=8)
        odd = asyncio.create_task(to.decide(rows("a", 1.0, 2.0)))
        start_s = now_s()
        assert answers(await to.decide(rows("b", 4.0))) == [4.0]
        assert answers(await to.decide(rows("c", 6.0))) == [6.0]
        assert now_s() == start_s, "no request waits for the deferral of another"
        assert to.queued_rows == 1
        assert answers(await odd) == [1.0, 2.0]
        assert now_s() - start_s == pytest.approx(10.0)
        await to.drain()
        assert to.queued_rows == 0

    run(main)


@dataclass
class SlowQueue:
    """A pipeline that defers every row, after the disk has taken `takes_s`; and what was withdrawn."""

    takes_s: float
    withdrawn: list[str] = field(default_factory=list)

    def batcher(self) -> Batcher:
        return practised(self.answer, self.withdrawn.extend, batch=8, queue=100)

    async def answer(self, batch: Batch) -> BatchResult:
        async def rest() -> BatchResult:
            await asyncio.sleep(self.takes_s)
            return BatchResult([Decision(one, Deferred(one, Reason.ABSTAINED)) for one in batch.ids])

        return BatchResult([None] * len(batch), rest)


def test_a_row_whose_caller_was_told_504_is_withdrawn_and_its_neighbours_are_not() -> None:
    async def main() -> None:
        queue = SlowQueue(takes_s=5.0)
        to = queue.batcher()
        first = await busy(to)  # what follows shares one batch
        hurried = asyncio.create_task(to.decide(rows("hurried", 1.0, 2.0, within_s=2.0)))
        patient = asyncio.create_task(to.decide(rows("patient", 3.0, within_s=20.0)))
        assert outcomes(await hurried) == [Refused(Reason.DEADLINE)] * 2
        assert outcomes(await patient) == [Deferred("patient0", Reason.ABSTAINED)]
        await asyncio.gather(*first)
        await to.drain()
        assert queue.withdrawn == ["hurried0", "hurried1"]

    run(main)


@pytest.mark.parametrize("after_s", [0.0, 2.0])
def test_a_row_whose_caller_hangs_up_is_withdrawn(after_s: float) -> None:
    async def main() -> None:
        queue = SlowQueue(takes_s=5.0)
        to = queue.batcher()
        gone = asyncio.create_task(to.decide(rows("gone", 1.0)))
        await asyncio.sleep(after_s)
        gone.cancel()
        await to.drain()
        assert queue.withdrawn == (["gone0"] if after_s else [])

    run(main)


def test_a_row_whose_caller_hangs_up_as_it_is_deferred_is_withdrawn() -> None:
    async def main() -> None:
        withdrawn: list[str] = []

        async def deferred(batch: Batch) -> list[Decision]:
            await asyncio.sleep(1.0)
            asyncio.get_running_loop().call_soon(gone.cancel)  # before the task can take the decision
            return [Decision(one, Deferred(one, Reason.ABSTAINED)) for one in batch.ids]

        gone = asyncio.create_task(batcher(deferred, withdraw=withdrawn.extend).decide(rows("gone", 1.0)))
        await asyncio.gather(gone, return_exceptions=True)
        assert gone.cancelled()
        assert withdrawn == ["gone0"]

    run(main)


def test_no_answer_leaves_after_its_deadline_where_a_part_holds_the_event_loop() -> None:
    withdrawn: list[str] = []

    async def deferred(batch: Batch) -> list[Decision]:
        await asyncio.sleep(0.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeTimeLoop)
        loop.now += 3.0
        return [Decision(one, Deferred(one, Reason.ABSTAINED)) for one in batch.ids]

    async def main() -> None:
        to = batcher(deferred, withdraw=withdrawn.extend)
        assert outcomes(await to.decide(rows("late", 1.0, within_s=2.0))) == [Refused(Reason.DEADLINE)]
        assert outcomes(await to.decide(rows("in time", 1.0, within_s=4.0))) != [Refused(Reason.DEADLINE)]
        assert withdrawn == ["late0"]

    run(main)


def test_a_row_whose_deadline_has_passed_as_its_turn_comes_costs_no_pass() -> None:
    seen: list[tuple[str, ...]] = []

    async def holds_the_loop(batch: Batch) -> list[Decision]:
        seen.append(batch.ids)
        await asyncio.sleep(0.0)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeTimeLoop)
        loop.now += 2.0
        return [Decision(one, Served({"y": np.zeros(1)}, "m")) for one in batch.ids]

    async def main() -> None:
        to = batcher(holds_the_loop, batch=1)
        names = ("a", "b", "c", "d", "e", "f")
        got = await asyncio.gather(*(to.decide(rows(name, 1.0, within_s=5.0)) for name in names))
        assert [outcomes(one) for one in got[4:]] == [[Refused(Reason.DEADLINE)]] * 2
        assert seen == [("a0",), ("b0",), ("c0",), ("d0",)]

    run(main)


def test_draining_an_idle_batcher_ends_at_once() -> None:
    async def main() -> None:
        await batcher(Pass().decide).drain()

    run(main)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 8), st.data())
def test_whatever_comes_together_every_row_gets_its_own_answer(
    sizes: list[int], most: int, data: st.DataObject
) -> None:
    waits_s = data.draw(st.lists(st.floats(0, 4), min_size=len(sizes), max_size=len(sizes)))
    within_s = data.draw(st.lists(st.floats(0.1, 9), min_size=len(sizes), max_size=len(sizes)))

    late, no_time = Reason.DEADLINE, Reason.UNAVAILABLE

    async def ask(to: Batcher, i: int) -> tuple[int, list[Decision]]:
        await asyncio.sleep(waits_s[i])
        x = [float(100 * i + row) for row in range(sizes[i])]
        return i, await to.decide(rows(f"r{i}.", *x, within_s=within_s[i]))

    async def main() -> None:
        one = Pass()
        to = batcher(one.decide, batch=most)
        for i, got in await asyncio.gather(*(ask(to, i) for i in range(len(sizes)))):
            assert [decision.id for decision in got] == [f"r{i}.{row}" for row in range(sizes[i])]
            if {getattr(end, "reason", None) for end in outcomes(got)} not in ({late}, {no_time}):
                assert answers(got) == [float(100 * i + row) for row in range(sizes[i])]
        assert all(size <= max(most, *sizes) for size in one.sizes)
        await to.drain()
        assert to.queued_rows == 0

    run(main)


def test_concatenated_rows_keep_their_ids_principals_inputs_and_deadlines() -> None:
    async def main() -> None:
        a, b = rows("a", 1.0, within_s=1.0), rows("b", 2.0, 3.0, within_s=2.0)
        both = concatenate([a, replace(b, principals=("x", "y"))])
        assert both.ids == ("a0", "b0", "b1")
        assert both.principals == ("a", "x", "y")
        assert both.inputs["x"].tolist() == [1.0, 2.0, 3.0]
        assert [at_s - now_s() for at_s in both.deadlines_s] == pytest.approx([1.0, 2.0, 2.0])

    run(main)
