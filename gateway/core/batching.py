"""Micro-batching without a timer: the rows that arrive while batches are being decided form the next one.

An idle gateway adds no wait, and a busy one shares each forward pass and each guard pass among all rows that
arrived in the meantime. Two batches are decided at a time: while the model runs for one, the guards judge the
other. Requests are never split, and rows keep their order. A caller that stops waiting, or whose deadline
passes, does not affect the batch that has its rows. A deferred row waits for the disk of the review queue;
the other rows of its batch do not.

No answer leaves after the deadline, also where a part has held the event loop until then. And no row stays in
the review queue whose caller was told something else, or has hung up: it is withdrawn.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Reason, Refused, deferred_ids
from gateway.core.pipeline import BatchResult

DecideBatch: TypeAlias = Callable[[Batch], Awaitable[BatchResult]]
Withdraw: TypeAlias = Callable[[Sequence[str]], None]
"""Told the ids of rows that were deferred in vain. Must not wait, nor raise."""
QueuedRequest: TypeAlias = tuple[Batch, asyncio.Future[list[Decision]]]
"""The rows of one request, and the future of their decisions."""
MAX_CONCURRENT_BATCHES = 2
PRIORITY_LEVELS = 4
"""Lower priorities than the last count as the last."""
log = logging.getLogger(__name__)


class _Overdue(NamedTuple):
    """Requests of one deadline, in loop seconds, and the timer that refuses those that still wait then.

    The loop's clock advances by the millisecond, so requests of the same policy often share one.
    """

    until_s: float
    waiting: dict[asyncio.Future[list[Decision]], Batch]
    timer: asyncio.TimerHandle


class Batcher:
    """Decides rows of many requests together. At most `max_queued_rows` wait; more are refused at once.

    Rows that wait for the review queue's disk count as waiting too.
    Cost: one future a request, one timer for those of one deadline; one concatenation a batch of several.
    """

    def __init__(
        self, answer: DecideBatch, withdraw: Withdraw, *, max_batch_rows: int, max_queued_rows: int
    ) -> None:
        self._answer, self._withdraw = answer, withdraw
        self.max_batch_rows = max_batch_rows
        self.max_queued_rows = max_queued_rows
        self._waiting: tuple[deque[QueuedRequest], ...]
        self._waiting = tuple(deque() for _ in range(PRIORITY_LEVELS))
        self._deciding = 0  # tasks that decide batches
        self._tasks: set[asyncio.Task[None]] = set()
        self.queued_rows = 0
        self._overdue: dict[float, _Overdue] = {}

    async def decide(self, batch: Batch, priority: int = 1) -> list[Decision]:
        """The decisions for one request's rows by their deadline; raises nothing but our own cancellation.

        Args:    priority: from 1, the highest.
        """
        rows = len(batch)
        if self.queued_rows + rows > self.max_queued_rows:
            return _refuse(batch, Refused(Reason.UNAVAILABLE, retry_after_s=1.0))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Decision]] = loop.create_future()
        self._waiting[min(priority, PRIORITY_LEVELS) - 1].append((batch, answer))
        self.queued_rows += rows
        if self._deciding < MAX_CONCURRENT_BATCHES:
            self._deciding += 1
            self._start(self._decide_batches())
        overdue = self._overdue.get(batch.until_s) or self._overdue_at(batch.until_s, loop)
        overdue.waiting[answer] = batch
        try:
            decisions = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled():
                self._withdraw_deferred(answer.result())
            raise
        finally:
            self._leave(overdue, answer)
        if now_s() <= batch.until_s:
            return decisions
        self._withdraw_deferred(decisions)
        return _refuse(batch, Refused(Reason.DEADLINE))

    def _withdraw_deferred(self, decisions: Sequence[Decision]) -> None:
        if deferred := deferred_ids(decisions):
            self._withdraw(deferred)

    def _overdue_at(self, until_s: float, loop: asyncio.AbstractEventLoop) -> _Overdue:
        overdue = _Overdue(until_s, {}, loop.call_at(until_s, self._refuse_overdue, until_s))
        self._overdue[until_s] = overdue
        return overdue

    def _refuse_overdue(self, until_s: float) -> None:
        for answer, batch in self._overdue.pop(until_s).waiting.items():
            if not answer.done():
                answer.set_result(_refuse(batch, Refused(Reason.DEADLINE)))

    def _leave(self, overdue: _Overdue, answer: asyncio.Future[list[Decision]]) -> None:
        del overdue.waiting[answer]
        if not overdue.waiting:
            overdue.timer.cancel()
            if self._overdue.get(overdue.until_s) is overdue:  # not where it has fired
                del self._overdue[overdue.until_s]

    async def drain(self) -> None:
        """Waits until every accepted row is decided."""
        while pending := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(pending)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide_batches(self) -> None:
        """Decides what waits, until nothing does: no request can come between that and the count."""
        try:
            while requests := self._next_batch():
                batch = (
                    requests[0][0] if len(requests) == 1 else concatenate([batch for batch, _ in requests])
                )
                result = await self._result_or_refusals(batch, self._answer(batch))
                self._resolve(requests, result.decisions)
                if result.finish_review is not None:
                    self._start(self._finish_review(requests, batch, result))
        finally:
            self._deciding -= 1

    async def _finish_review(
        self, requests: Sequence[QueuedRequest], batch: Batch, result: BatchResult
    ) -> None:
        """Waits until the review queue has stored the deferred rows, while later batches are decided."""
        assert result.finish_review is not None
        rows = sum(decision is None for decision in result.decisions)
        self.queued_rows += rows
        try:
            result = await self._result_or_refusals(batch, result.finish_review())
            self._resolve(requests, result.decisions)
        finally:
            self.queued_rows -= rows

    async def _result_or_refusals(self, batch: Batch, deciding: Awaitable[BatchResult]) -> BatchResult:
        """The result of the pipeline; refusals of all rows if, by a defect, it raises or mixes rows up."""
        try:
            result = await deciding
            decided = [id_ if d is None else d.id for id_, d in zip(batch.ids, result.decisions, strict=True)]
            if decided != list(batch.ids):
                raise RuntimeError("decisions for other rows than those of the batch")
        except Exception:
            log.exception("the pipeline raised: this is a defect of the gateway")
            return BatchResult(_refuse(batch, Refused(Reason.UNAVAILABLE)))
        return result

    def _resolve(self, requests: Sequence[QueuedRequest], decisions: Sequence[Decision | None]) -> None:
        """Resolves the requests of which every row is decided."""
        start = 0
        for batch, answer in requests:
            rows = len(batch)
            own = [one for one in decisions[start : start + rows] if one is not None]
            if not answer.done():
                if len(own) == rows:
                    answer.set_result(own)
            else:  # refused as overdue, or given up by its caller, before these decisions came
                self._withdraw_deferred(own)
            start += rows

    def _next_batch(self) -> list[QueuedRequest]:
        """The longest prefix of the queue that fits one batch of one form; abandoned requests are skipped."""
        requests: list[QueuedRequest] = []
        rows, form = 0, None
        while waiting := next(filter(None, self._waiting), None):
            batch, answer = waiting[0]
            n, batch_form = len(batch), form_of(batch)
            if requests and (rows + n > self.max_batch_rows or batch_form != form):
                break
            waiting.popleft()
            self.queued_rows -= n
            if answer.done():
                continue
            requests.append((batch, answer))
            rows, form = rows + n, batch_form
        return requests


def form_of(batch: Batch) -> list[Any]:
    """What rows of one batch have in common: input names, dtypes, shapes of a row; and their budgets."""
    form: list[Any] = [(name, array.dtype, array.shape[1:]) for name, array in batch.inputs.items()]
    form += [stage for stage, _ in batch.charges]  # a reload brings others
    return form


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches as one, in order. All have the same inputs, dtypes and trailing shapes."""
    return Batch(
        ids=tuple(row for batch in batches for row in batch.ids),
        principals=tuple(name for batch in batches for name in batch.principals),
        inputs={name: np.concatenate([b.inputs[name] for b in batches]) for name in batches[0].inputs},
        deadlines_s=tuple(until_s for batch in batches for until_s in batch.deadlines_s),
        charges=[
            (stage, [score for batch in batches for score in batch.charges[i][1]])
            for i, (stage, _) in enumerate(batches[0].charges)
        ],
    )


def _refuse(batch: Batch, refused: Refused) -> list[Decision]:
    return [Decision(row, refused) for row in batch.ids]
