"""A worker that is replaced where a job in native code does not come back, a bounded number of times.

A job that is cancelled is asked to stop, and most do within milliseconds. onnxruntime looks between two
operators; a row on which one operator does not end would hold the thread for good, and cost every caller the
model. So a thread that still runs such a job after `GIVE_UP_S` is given up: another takes the next jobs. Each
that is given up keeps a core busy, so there are `MOST_GIVEN_UP` at most: then the process has to be replaced.

    | the thread                          | a call         | lost |
    |-------------------------------------|----------------|------|
    | is free, or works for a caller      | waits its turn | no   |
    | holds a cancelled job               | is refused     | no   |
    | the same after GIVE_UP_S            | gets a new one | no   |
    | the same, and no more may be made   | is refused     | yes  |

The job may share what it uses with the next one: an onnxruntime session may be run by several threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from fallbacks.worker import Worker

GIVE_UP_S: Final = 1.0
MOST_GIVEN_UP: Final = 2
log = logging.getLogger(__name__)


class WorkerWithSpares:
    """Threads of one name of which one takes jobs. clock: seconds, must not go back."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = name, clock
        self._worker = Worker(name)
        self._given_up: list[Worker] = []

    @property
    def lost(self) -> bool:
        """Whether no thread will take a job any more, unless one that was given up comes back."""
        return self._hangs() and not self._may_replace()

    def free(self) -> Worker | None:
        """The thread that takes the next job; None while it holds one that was cancelled."""
        if not self._worker.stuck:
            return self._worker
        if not (self._hangs() and self._may_replace()):
            return None
        log.error("%s: a call did not end %g s after it was cancelled; another thread", self._name, GIVE_UP_S)
        self._given_up.append(self._worker)
        self._worker = Worker(self._name)
        return self._worker

    def close(self) -> None:
        """Ends every thread that can be ended: waits a second each, then asks its job to stop. Idempotent."""
        for worker in (*self._given_up, self._worker):
            worker.close()

    def _hangs(self) -> bool:
        since_s = self._worker.stuck_since_s
        return since_s is not None and self._clock() - since_s >= GIVE_UP_S

    def _may_replace(self) -> bool:
        came_back = [one for one in self._given_up if not one.stuck]
        for worker in came_back:
            worker.close(0.0)
            self._given_up.remove(worker)
        return len(self._given_up) < MOST_GIVEN_UP
