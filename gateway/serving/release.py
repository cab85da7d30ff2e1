"""Releases the answer to a request on a grid of time, so that its duration tells less of what was done.

A row that a guard squeezes, or that a check sends to review, takes longer than another. With a grid, every
request is answered a whole number of steps after its rows were taken: requests whose work ends within the
same step take equally long. The steps count from the request itself. A grid of the clock would not do: with
arrivals spread over a step, the average duration would be the true one and half a step.

The event loop cannot keep the points. It sleeps for whole milliseconds, from the last event that it handled,
which is the end of this request's work: its timers show the fraction of a millisecond at which that work
ended, and the least of fifteen repetitions tells which guard ran (area under the ROC curve 0.7 in
`bench.side_channels`). So a thread keeps them, whose sleep ends at a point of time.

What is left is some 15 us: a core that has rested longer takes longer to wake, and its caches to fill. So a
request's points are shifted by up to a tenth of a step, by an amount that its content and a secret of the
process fix. A shift drawn anew would fall out of the least, or the mean, of some repetitions. This one does
not: only other inputs have other shifts.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
from collections.abc import Collection
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import count
from typing import Final, NamedTuple

from fallbacks.oip.tensors import Array
from gateway.core.rows import content_of

SPREAD: Final = 0.1
"""How far points are shifted, at most, in steps."""
HASHED_BYTES: Final = 2**18
"""Hashing more would hold the event loop: the shift of a larger request is drawn anew each time."""
_FOREVER: Final = threading.TIMEOUT_MAX


def next_point_s(start_s: float, now_s: float, step_s: float, until_s: float) -> float:
    """The next point of a request's grid: a whole number of steps, one at least, after its start.

    All seconds of one clock. until_s: the request's deadline, which is its last point.
    """
    steps = max(math.ceil((now_s - start_s) / step_s), 1)
    return min(start_s + steps * step_s, until_s)


def shift_of(inputs: Collection[Array], secret: bytes) -> float:
    """By how much the points of a request with these inputs are shifted, in steps: 0 to SPREAD.

    Cost: 1 us a KiB.
    """
    if sum(array.nbytes for array in inputs) > HASHED_BYTES:
        return SPREAD * secrets.randbits(32) / 2**32
    digest = blake2b(key=secret, digest_size=4)
    for array in inputs:
        digest.update(content_of(array))
    return SPREAD * int.from_bytes(digest.digest()) / 2**32


class _Sleeper(NamedTuple):
    """A request that waits for a point of time. number: orders those of the same time."""

    due_s: float
    number: int
    loop: asyncio.AbstractEventLoop
    due: asyncio.Future[None]


class ReleaseClock:
    """Wakes requests at points of time, within 0.1 ms. Its thread starts with the first; `close` ends it.

    Cost: 60 us a request, two thirds of it beside the event loop.
    """

    def __init__(self) -> None:
        self._sleepers: list[_Sleeper] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def sleep_until(self, due_s: float) -> None:
        """Returns at this point of `time.monotonic`: at once if it has passed or the clock is closed."""
        if due_s <= time.monotonic() or self._closed:
            return
        loop = asyncio.get_running_loop()
        due = loop.create_future()
        with self._changed:
            sleeper = _Sleeper(due_s, next(self._numbers), loop, due)
            heappush(self._sleepers, sleeper)
            if self._sleepers[0] is sleeper:  # else the thread wakes soon enough
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="release", daemon=True)
                self._thread.start()
        await due

    def close(self) -> None:
        """Wakes every request that still waits, and ends the thread. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                wait_s = self._sleepers[0].due_s - time.monotonic() if self._sleepers else _FOREVER
                if wait_s > 0:
                    self._changed.wait(wait_s)
                else:
                    _wake(heappop(self._sleepers))
            for one in self._sleepers:
                _wake(one)


def _wake(sleeper: _Sleeper) -> None:
    try:
        sleeper.loop.call_soon_threadsafe(_set_due, sleeper.due)
    except RuntimeError:
        pass  # the loop is closed: no caller is left


def _set_due(due: asyncio.Future[None]) -> None:
    if not due.done():  # or its request was cancelled
        due.set_result(None)
