"""Natural micro-batching: while batches are being decided, the next one collects.

There is no timer, so an idle gateway adds no wait, and a busy one shares each forward pass and each guard
pass among all rows that came in the meantime. Two batches are under way at a time: while the model runs for
one, the guards judge the other. Requests are never split, rows never mixed up, and a caller that stops
waiting, or whose deadline passes, does not disturb the batch that carries its rows. A deferred row waits for
the disk of the review queue; its neighbours do not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from gateway.core.batch import Batch
from gateway.core.decision import Decision, Reason, Refused
from gateway.core.pipeline import Ended

DecideBatch: TypeAlias = Callable[[Batch], Awaitable[Ended]]
Taken: TypeAlias = list[tuple[Batch, asyncio.Future[list[Decision]]]]
LANES = 2
LEVELS = 4
"""How many priorities there are; every lower one counts as the last."""
log = logging.getLogger(__name__)


class Batcher:
    """Decides rows of many requests together. At most `max_queued_rows` wait; more are refused at once.

    Rows that wait for the review queue's disk count as waiting too.
    Cost: one future and one timer a request; one concatenation a batch of more than one request.
    """

    def __init__(self, answer: DecideBatch, *, max_batch_rows: int, max_queued_rows: int) -> None:
        self._answer = answer
        self.max_batch_rows = max_batch_rows
        self.max_queued_rows = max_queued_rows
        self._waiting: tuple[deque[tuple[Batch, asyncio.Future[list[Decision]]]], ...]
        self._waiting = tuple(deque() for _ in range(LEVELS))
        self._lanes: list[asyncio.Task[None]] = []
        self._ends: set[asyncio.Task[None]] = set()
        self.queued_rows = 0

    async def decide(self, batch: Batch, priority: int = 1) -> list[Decision]:
        """The decisions for one request's rows by their deadline; total, our own cancellation aside.

        Args:    priority: from 1, the highest.
        """
        rows = len(batch)
        if self.queued_rows + rows > self.max_queued_rows:
            return _refuse(batch, Refused(Reason.UNAVAILABLE, retry_after_s=1.0))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Decision]] = loop.create_future()
        self._waiting[min(priority, LEVELS) - 1].append((batch, answer))
        self.queued_rows += rows
        self._lanes = [lane for lane in self._lanes if not lane.done()]
        if len(self._lanes) < LANES:
            self._lanes.append(loop.create_task(self._work()))
        alarm = loop.call_at(batch.until_s, _settle, batch, answer, Refused(Reason.DEADLINE))
        try:
            return await answer
        finally:
            alarm.cancel()

    async def drain(self) -> None:
        """Waits until every accepted row is decided."""
        while pending := [task for task in (*self._lanes, *self._ends) if not task.done()]:
            await asyncio.wait(pending)

    async def _work(self) -> None:
        while taken := self._take():
            batch = taken[0][0] if len(taken) == 1 else concatenate([batch for batch, _ in taken])
            ended = await self._total(batch, self._answer(batch))
            _tell(taken, ended.known)
            if ended.finish_review is not None:
                end = asyncio.create_task(self._end(taken, batch, ended))
                self._ends.add(end)
                end.add_done_callback(self._ends.discard)

    async def _end(self, taken: Taken, batch: Batch, ended: Ended) -> None:
        """Waits until the review queue has stored the deferred rows, while later batches are decided."""
        assert ended.finish_review is not None
        rows = sum(decision is None for decision in ended.known)
        self.queued_rows += rows
        try:
            _tell(taken, (await self._total(batch, ended.finish_review())).known)
        finally:
            self.queued_rows -= rows

    async def _total(self, batch: Batch, deciding: Awaitable[Ended]) -> Ended:
        """What the pipeline decides. It is total; should a defect break that, the rows are refused."""
        try:
            ended = await deciding
            decided = [id_ if d is None else d.id for id_, d in zip(batch.ids, ended.known, strict=True)]
            if decided != list(batch.ids):
                raise RuntimeError("decisions for other rows than those of the batch")
        except Exception:
            log.exception("the pipeline raised: this is a defect of the gateway")
            return Ended(_refuse(batch, Refused(Reason.UNAVAILABLE)))
        return ended

    def _take(self) -> Taken:
        """The longest prefix of the queue that fits one batch of one form; abandoned requests are skipped."""
        taken: Taken = []
        rows, form = 0, None
        while waiting := next(filter(None, self._waiting), None):
            batch, answer = waiting[0]
            n, its_form = len(batch), form_of(batch)
            if taken and (rows + n > self.max_batch_rows or its_form != form):
                break
            waiting.popleft()
            self.queued_rows -= n
            if answer.done():
                continue
            taken.append((batch, answer))
            rows, form = rows + n, its_form
        return taken


def form_of(batch: Batch) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """What rows must share to be in one batch: input names, dtypes and shapes without the row."""
    return {name: (array.dtype, array.shape[1:]) for name, array in batch.inputs.items()}


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches as one, in order. All have the same inputs, dtypes and trailing shapes."""
    return Batch(
        ids=tuple(row for batch in batches for row in batch.ids),
        principals=tuple(who for batch in batches for who in batch.principals),
        inputs={name: np.concatenate([b.inputs[name] for b in batches]) for name in batches[0].inputs},
        deadlines_s=tuple(until_s for batch in batches for until_s in batch.deadlines_s),
    )


def _tell(taken: Taken, decisions: Sequence[Decision | None]) -> None:
    """Resolves the requests of which every row is decided."""
    start = 0
    for batch, answer in taken:
        rows = len(batch)
        mine = [one for one in decisions[start : start + rows] if one is not None]
        if len(mine) == rows and not answer.done():
            answer.set_result(mine)
        start += rows


def _settle(batch: Batch, answer: asyncio.Future[list[Decision]], refused: Refused) -> None:
    if not answer.done():
        answer.set_result(_refuse(batch, refused))


def _refuse(batch: Batch, refused: Refused) -> list[Decision]:
    return [Decision(row, refused) for row in batch.ids]
