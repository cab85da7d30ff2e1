"""Notices that the event loop is blocked, from a thread of its own: counts it, logs where, has callers told.

A part that never awaits, or native code that keeps its thread, stops everything that the event loop does:
deadlines, replies, readiness. The thread asks the loop ten times a second to run a callback. While one does
not run, the loop is stalled, whether a part blocks it or the machine gives it no time.

Native code that also keeps the interpreter's lock stops this thread as well: such a stall is noticed, and
counted, when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

ASK_EVERY_S: Final = 0.1
STALLED_S: Final = 0.25
"""A callback that has not run for this long is a stall: it is counted, and logged."""
ANSWER_AFTER_S: Final = 0.5
"""From then on new connections are answered elsewhere: a stall that soon ends costs no request."""
STEP_S: Final = 0.05
LOG_EVERY_S: Final = 10.0
"""At most one stack in so many seconds is logged: other stalls are counted, and their number logged then."""
log = logging.getLogger(__name__)


class LoopStalls:
    """The stalls of one event loop so far. Written by the thread that watches, read by any.

    count: with one under way; total_s, longest_s: seconds of those that are over.
    """

    __slots__ = ("count", "longest_s", "total_s")

    def __init__(self) -> None:
        self.count, self.total_s, self.longest_s = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        """Adds a stall that is over, and was counted when it began."""
        self.total_s += seconds
        self.longest_s = max(self.longest_s, seconds)


class LoopWatch:
    """Watches one event loop. `start` it there; `stop` it before the listening socket is closed.

    answer_next: answers one client that connects within so many seconds, without the event loop.
    """

    def __init__(
        self,
        stalls: LoopStalls,
        answer_next: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stalls, self._answer_next, self._clock = stalls, answer_next, clock
        self._ended = threading.Event()
        self._logged_s, self._unlogged = -LOG_EVERY_S, 0

    def start(self) -> None:
        """Watches the running loop from now on. Cost: one callback of the loop every ASK_EVERY_S."""
        args = (asyncio.get_running_loop(), threading.get_ident())
        threading.Thread(target=self._run, args=args, name="loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Ends the thread soon; it answers no further client."""
        self._ended.set()

    def _run(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        due_s = self._clock() + ASK_EVERY_S
        while not self._ended.wait(ASK_EVERY_S):
            ran, asked_s = threading.Event(), self._clock()
            try:
                loop.call_soon_threadsafe(ran.set)
            except RuntimeError:
                return  # the loop is closed
            if not ran.wait(STALLED_S):
                self._follow(ran, asked_s, thread_id)
            elif (late_s := self._clock() - due_s) > STALLED_S:
                self._note(late_s)
            due_s = self._clock() + ASK_EVERY_S

    def _note(self, lasted_s: float) -> None:
        """Counts a stall that this thread could not follow, since it did not run either."""
        self._stalls.count += 1
        self._stalls.add(lasted_s)
        log.warning("no thread of this process has run for %.2f s", lasted_s)

    def _follow(self, ran: threading.Event, asked_s: float, thread_id: int) -> None:
        """Reports a stall, and has clients answered until it is over."""
        self._stalls.count += 1
        reported = self._report(asked_s, thread_id)
        ran.wait(max(0.0, asked_s + ANSWER_AFTER_S - self._clock()))
        while not (ran.is_set() or self._ended.is_set()):
            self._answer_next(STEP_S)
        lasted_s = self._clock() - asked_s
        self._stalls.add(lasted_s)
        if reported:
            log.warning("the event loop runs again, after %.2f s", lasted_s)

    def _report(self, asked_s: float, thread_id: int) -> bool:
        """Logs where the loop's thread is; whether it did, which is not too often."""
        now_s = self._clock()
        if now_s - self._logged_s < LOG_EVERY_S:
            self._unlogged += 1
            return False
        others = f" ({self._unlogged} stalls before this one were not logged)" if self._unlogged else ""
        what = "the event loop has run nothing for %.2f s%s; its thread is at:\n%s"
        log.error(what, now_s - asked_s, others, stack_of(thread_id))
        self._logged_s, self._unlogged = now_s, 0
        return True


def stack_of(thread_id: int) -> str:
    """Where a thread is: files, lines and functions, without any value. Empty if it has ended."""
    frame = sys._current_frames().get(thread_id)
    return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip()
