"""Releases the answer to a request on a grid of time, so that its duration tells less of what was done.

A row that a guard squeezes, or that a check sends to review, takes longer than another. With a grid, every
request is answered a whole number of steps after its rows were taken: requests whose work ends within the
same step take equally long. The steps count from the request itself. A grid of the clock would not do: with
arrivals spread over a step, the average duration would be the true one and half a step.

The timer is set when the request arrives, since the loop's clock is as coarse as a millisecond: set at the
end, its rounding would show the fraction of a millisecond at which the work ended.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class ReleaseGrid:
    """The points of time at which one request may be answered, from its making on; for a `with` block.

    step_s: between two points; until_s: loop seconds of the request's deadline, which is the last point.
    Cost:   one timer a step, 2 us.
    """

    __slots__ = ("_loop", "_next_s", "_released", "_step_s", "_timer", "_until_s")

    def __init__(self, step_s: float, until_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._step_s, self._until_s = step_s, until_s
        self._next_s = self._loop.time()
        self._released: asyncio.Future[None] | None = None
        self._timer = self._set_timer()

    def _set_timer(self) -> asyncio.TimerHandle:
        self._next_s = min(self._next_s + self._step_s, self._until_s)
        return self._loop.call_at(self._next_s, self._at_point)

    def _at_point(self) -> None:
        if self._released is not None:
            if not self._released.done():
                self._released.set_result(None)
        elif self._next_s < self._until_s:
            self._timer = self._set_timer()

    async def next_point(self) -> None:
        """Waits for the next point; not at all after the last."""
        if self._loop.time() >= self._until_s:
            return
        self._released = self._loop.create_future()
        await self._released

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
