"""Tells waiting requests when a reviewer has answered one of their cases.

One task asks the store ten times a second for the cases that were decided lately, however many requests wait
and whichever replica took the answer; it ends with the last waiting request. So a request that waits costs
nothing until there is something to read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from fallbacks.review.store import ReviewStore
from gateway.access.waiting import WaitingRequests

POLL_EVERY_S: Final = 0.1
LATELY_S: Final = 2.0
"""How far back each query reaches, so that it finds an answer whose commit took until after the last one."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A request that waits. done: set once one of its cases is decided, or the store cannot be read."""

    case_ids: frozenset[str]
    done: asyncio.Event


class AnswerWatch:
    """Watches one store, on one event loop. requests: those that wait, to be counted by who waits.

    ended: no request is to wait any more.
    """

    def __init__(self, store: ReviewStore) -> None:
        self._store = store
        self.requests = WaitingRequests()
        self._waiting: set[_Waiting] = set()
        self.ended = False
        self._task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Ends every wait, now and from now on."""
        self.ended = True
        for waiting in self._waiting:
            waiting.done.set()

    async def wait(self, case_ids: Collection[str], timeout_s: float) -> None:
        """Returns when one of these cases was decided in the last two seconds or is now, or at the timeout.

        It may return early: look the cases up then. Cost: one entry in a set.
        """
        if self.ended:
            return
        waiting = _Waiting(frozenset(case_ids), asyncio.Event())
        self._waiting.add(waiting)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(timeout_s):
                await waiting.done.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(waiting)

    async def _watch(self) -> None:
        while self._waiting:
            await asyncio.sleep(POLL_EVERY_S)
            try:
                decided = await self._store.decided_within(LATELY_S)
            except Exception:
                log.exception("the review queue cannot be read; requests that wait for answers end")
                for waiting in self._waiting:
                    waiting.done.set()
                return
            for waiting in self._waiting:
                if not waiting.case_ids.isdisjoint(decided):
                    waiting.done.set()
