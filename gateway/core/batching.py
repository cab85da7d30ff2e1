"""Micro-batching without a timer: the rows that arrive while batches are being decided form the next one.

An idle gateway adds no wait, and a busy one shares each forward pass and each guard pass among all rows that
arrived in the meantime. Two batches are decided at a time: while the model runs for one, the guards judge the
other. Requests are never split. A caller that stops waiting, or whose deadline passes, does not affect the
batch that has its rows. A deferred row waits for the disk of the review queue; the other rows of its batch do
not.

More requests than can be answered in time are refused at once (`row_limit.py`). Those that are taken wait in
turns over their callers (`fair_queue.py`), and a batch has no more rows than the models answer within their
budgets (`batch_size.py`).

No answer leaves after the deadline, also where a part has held the event loop until then. And no row stays in
the review queue whose caller was told something else, or has hung up: it is withdrawn.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gateway.core.batch import Batch
from gateway.core.batch_size import BatchSize
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Reason, Refused, deferred_ids
from gateway.core.fair_queue import FairQueue
from gateway.core.pipeline import BatchResult
from gateway.core.row_limit import RowLimit

DecideBatch: TypeAlias = Callable[[Batch], Awaitable[BatchResult]]
Overflow: TypeAlias = Callable[[Batch, int], Coroutine[Any, Any, list[Decision]] | None]
"""What else decides a request of this priority that there is no room for; None: it is refused."""
Withdraw: TypeAlias = Callable[[Sequence[str]], None]
"""Told the ids of rows that were deferred in vain. Must not wait, nor raise."""
log = logging.getLogger(__name__)


def _refuse_all(batch: Batch, priority: int) -> None:
    """Nothing else decides a request."""


class QueuedRequest(NamedTuple):
    """The rows of one request, the future of their decisions, and since when they wait, in loop seconds."""

    batch: Batch
    answer: asyncio.Future[list[Decision]]
    since_s: float


class _Overdue(NamedTuple):
    """Requests of one deadline, in loop seconds, and the timer that refuses those that still wait then.

    The loop's clock advances by the millisecond, so requests of the same policy often share one.
    """

    until_s: float
    waiting: dict[asyncio.Future[list[Decision]], Batch]
    timer: asyncio.TimerHandle


class Batcher:
    """Decides rows of many requests together.

    limit: how many may be under way; max_queued_rows: how many may wait, those for the review queue's disk
    among them: beyond either, they are refused at once. size: how many are decided together, unless one
    request has more. overflow: asked before a request is refused for want of room.
    Cost: one future a request, one timer for those of one deadline; one concatenation a batch of several.
    """

    def __init__(
        self,
        answer: DecideBatch,
        withdraw: Withdraw,
        limit: RowLimit,
        size: BatchSize,
        max_queued_rows: int,
        overflow: Overflow = _refuse_all,
    ) -> None:
        self._answer, self._withdraw, self._overflow = answer, withdraw, overflow
        self.limit, self.size, self.max_queued_rows = limit, size, max_queued_rows
        self._waiting: FairQueue[QueuedRequest] = FairQueue()
        self._deciding = 0  # tasks that decide batches
        self._decided_s = -math.inf  # when the last batch was
        self._tasks: set[asyncio.Task[None]] = set()
        self.queued_rows = 0
        self._overdue: dict[float, _Overdue] = {}

    async def decide(self, batch: Batch, priority: int = 1) -> list[Decision]:
        """The decisions for one request's rows by their deadline; raises nothing but our own cancellation.

        Args:    priority: from 1, the highest.
        """
        rows, caller, loop = len(batch.ids), batch.principals[0], asyncio.get_running_loop()
        since_s = loop.time()
        if not self.has_room(caller, rows, batch.until_s - since_s, priority):
            if (elsewhere := self._overflow(batch, priority)) is not None:
                return await elsewhere
            return _refuse(batch, Refused(Reason.UNAVAILABLE, self.limit.refuse(rows)))
        answer: asyncio.Future[list[Decision]] = loop.create_future()
        overdue = self._enqueue(QueuedRequest(batch, answer, since_s), caller, priority, loop)
        self.limit.take(caller, rows, priority)
        try:
            decisions = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled():
                self._withdraw_deferred(answer.result())
            raise
        finally:
            self._leave(overdue, answer)
            self.limit.release(caller, rows, priority)
        if loop.time() <= batch.until_s:
            return decisions
        self._withdraw_deferred(decisions)
        return _refuse(batch, Refused(Reason.DEADLINE))

    def has_room(self, caller: str, rows: int, left_s: float, priority: int) -> bool:
        """Whether these rows may be taken now, and can be answered in `left_s` seconds."""
        fits = self.queued_rows + rows <= self.max_queued_rows
        return fits and self.limit.has_room(caller, rows, left_s, priority)

    def _enqueue(
        self, request: QueuedRequest, caller: str, priority: int, loop: asyncio.AbstractEventLoop
    ) -> _Overdue:
        """Has a request wait for a batch; returns those that share its deadline."""
        batch, answer, _ = request
        self._waiting.put(request, caller, priority)
        self.queued_rows += len(batch.ids)
        if self._deciding < self.size.lanes:
            self._deciding += 1
            self._start(self._decide_batches())
        overdue = self._overdue.get(batch.until_s) or self._overdue_at(batch.until_s, loop)
        overdue.waiting[answer] = batch
        return overdue

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
            while self._deciding <= self.size.lanes and (requests := self._next_batch()):
                batches = [request.batch for request in requests]
                batch = batches[0] if len(batches) == 1 else concatenate(batches)
                started_s = now_s()
                result = await self._result_or_refusals(batch, self._answer(batch))
                self._observe(requests, started_s, result)
                self._resolve(requests, result.decisions)
                if result.finish_review is not None:
                    self._start(self._finish_review(requests, batch, result))
        finally:
            self._deciding -= 1

    def _observe(self, requests: Sequence[QueuedRequest], started_s: float, result: BatchResult) -> None:
        """Has the limits learn of a batch that has been decided now."""
        ended_s = now_s()
        waited_s = started_s - min([request.since_s for request in requests])
        spent_s = ended_s - max(self._decided_s, started_s)
        rows = len(result.decisions)
        self.limit.observe(rows, waited_s, ended_s - started_s, spent_s)
        self.size.observe(rows, result.budget_share, spent_s, ended_s)
        self._decided_s = ended_s

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
        for batch, answer, _ in requests:
            rows = len(batch.ids)
            own = list(filter(None, decisions[start : start + rows]))  # without those that are not decided
            if not answer.done():
                if len(own) == rows:
                    answer.set_result(own)
            else:  # refused as overdue, or given up by its caller, before these decisions came
                self._withdraw_deferred(own)
            start += rows

    def _next_batch(self) -> list[QueuedRequest]:
        """What comes first in the queue and fits one batch of one form.

        Abandoned requests are skipped, and those refused of which the deadline has passed.
        """
        requests: list[QueuedRequest] = []
        rows, form, now, most = 0, None, now_s(), self.size.rows
        while (waiting := self._waiting.first()) is not None:
            batch, answer, _ = waiting
            n, batch_form = len(batch.ids), form_of(batch)
            if requests and (rows + n > most or batch_form != form):
                break
            self._waiting.pop()
            self.queued_rows -= n
            if answer.done():
                continue
            if batch.until_s <= now:
                answer.set_result(_refuse(batch, Refused(Reason.DEADLINE)))
                continue
            requests.append(waiting)
            rows, form = rows + n, batch_form
        return requests


def form_of(batch: Batch) -> list[Any]:
    """What rows of one batch have in common: input names, dtypes, shapes of a row; and their pipeline."""
    form: list[Any] = [id(batch.pipeline)]  # a reload brings another
    for name, array in batch.inputs.items():
        form.append((name, array.dtype, array.shape[1:]))
    return form


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches as one, in order. All have the same inputs, dtypes and trailing shapes."""
    return Batch(
        ids=tuple(chain.from_iterable([batch.ids for batch in batches])),
        principals=tuple(chain.from_iterable([batch.principals for batch in batches])),
        inputs={name: np.concatenate([b.inputs[name] for b in batches]) for name in batches[0].inputs},
        deadlines_s=tuple(chain.from_iterable([batch.deadlines_s for batch in batches])),
        charges=[
            (stage, [score for batch in batches for score in batch.charges[i][1]])
            for i, (stage, _) in enumerate(batches[0].charges)
        ],
        pipeline=batches[0].pipeline,
    )


def _refuse(batch: Batch, refused: Refused) -> list[Decision]:
    return [Decision(row, refused) for row in batch.ids]
