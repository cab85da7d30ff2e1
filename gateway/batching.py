"""Natural micro-batching: while one batch is being decided, the next one collects.

There is no timer, so an idle gateway adds no wait, and a busy one shares each forward pass and each guard
pass among all rows that came in the meantime. Requests are never split, rows never mixed up, and a caller
who stops waiting, or whose deadline passes, does not disturb the batch that carries its rows.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from gateway.batch import Batch
from gateway.decision import Decision, Reason, Refused

Decide: TypeAlias = Callable[[Batch], Awaitable[list[Decision]]]
log = logging.getLogger(__name__)


class Batcher:
    """Decides rows of many requests together. At most `max_queued_rows` wait; more are refused at once.

    Cost: one future a request; one concatenation a batch of more than one request.
    """

    def __init__(self, decide: Decide, *, max_batch_rows: int, max_queued_rows: int) -> None:
        self._decide = decide
        self.max_batch_rows = max_batch_rows
        self.max_queued_rows = max_queued_rows
        self._waiting: deque[tuple[Batch, asyncio.Future[list[Decision]]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.queued_rows = 0

    async def decide(self, batch: Batch) -> list[Decision]:
        """The decisions for one request's rows by their deadline; total, our own cancellation aside."""
        if self.queued_rows + len(batch) > self.max_queued_rows:
            return _refuse(batch, Refused(Reason.UNAVAILABLE, retry_after_s=1.0))
        answer: asyncio.Future[list[Decision]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, answer))
        self.queued_rows += len(batch)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            async with asyncio.timeout_at(batch.until_s):
                return await answer
        except TimeoutError:
            return _refuse(batch, Refused(Reason.DEADLINE))

    async def drain(self) -> None:
        """Waits until everything that has been taken is decided."""
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        while taken := self._take():
            batch = taken[0][0] if len(taken) == 1 else concatenate([batch for batch, _ in taken])
            try:
                decisions = await self._decide(batch)
                if [d.id for d in decisions] != list(batch.ids):
                    raise RuntimeError(f"{len(decisions)} decisions for {len(batch)} rows, or for others")
            except (
                Exception
            ):  # decide is total; should a defect ever break that, callers get a refusal, not silence
                log.exception("the pipeline raised: this is a defect of the gateway")
                decisions = _refuse(batch, Refused(Reason.UNAVAILABLE))
            start = 0
            for one, answer in taken:
                if not answer.done():
                    answer.set_result(decisions[start : start + len(one)])
                start += len(one)

    def _take(self) -> list[tuple[Batch, asyncio.Future[list[Decision]]]]:
        """The longest prefix of the queue that makes one batch of one form; callers that left are skipped."""
        taken: list[tuple[Batch, asyncio.Future[list[Decision]]]] = []
        rows = 0
        while self._waiting:
            batch, answer = self._waiting[0]
            if taken and (rows + len(batch) > self.max_batch_rows or form_of(batch) != form_of(taken[0][0])):
                break
            self._waiting.popleft()
            self.queued_rows -= len(batch)
            if answer.done():
                continue
            taken.append((batch, answer))
            rows += len(batch)
        return taken


def form_of(batch: Batch) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """What rows must share to stand in one batch: input names, dtypes and shapes without the row."""
    return {name: (array.dtype, array.shape[1:]) for name, array in batch.inputs.items()}


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches as one, in order. All have the same inputs, dtypes and trailing shapes."""
    return Batch(
        ids=tuple(row for batch in batches for row in batch.ids),
        principals=tuple(who for batch in batches for who in batch.principals),
        inputs={name: np.concatenate([b.inputs[name] for b in batches]) for name in batches[0].inputs},
        deadlines_s=np.concatenate([b.deadlines_s for b in batches]),
    )


def _refuse(batch: Batch, refused: Refused) -> list[Decision]:
    return [Decision(row, refused) for row in batch.ids]
