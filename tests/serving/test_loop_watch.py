"""A blocked event loop is noticed by a thread: counted, logged with its stack, and answered for."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from gateway.serving import loop_watch
from gateway.serving.loop_watch import LoopStalls, LoopWatch, stack_of


def block_the_loop(seconds: float) -> None:
    time.sleep(seconds)


class Watched:
    """A watch whose answers are counted. answered: by the thread that gave them."""

    def __init__(self) -> None:
        self.stalls, self.answered = LoopStalls(), list[str]()
        self.watch = LoopWatch(self.stalls, self._answer_next)

    def _answer_next(self, within_s: float) -> None:
        self.answered.append(threading.current_thread().name)
        time.sleep(within_s)

    async def live(self, *blocked_s: float) -> None:
        """A loop that is blocked so many times, and is over them at the end."""
        self.watch.start()
        for seconds in blocked_s:
            await asyncio.sleep(0.3)
            block_the_loop(seconds)
            await asyncio.sleep(0.3)
        self.watch.stop()


def test_a_blocked_loop_is_counted_and_logged_once_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    with caplog.at_level(logging.WARNING, loop_watch.__name__):
        asyncio.run(watched.live(1.5))
    assert watched.stalls.count >= 1
    assert watched.stalls.longest_s > 1.0
    stacks = [one.getMessage() for one in caplog.records if "its thread is at" in one.getMessage()]
    assert len(stacks) == 1
    assert "block_the_loop" in stacks[0]
    assert "the event loop runs again" in caplog.text


def test_clients_are_answered_by_the_thread_only_while_the_loop_is_blocked_for_long() -> None:
    watched = Watched()
    asyncio.run(watched.live(1.5))
    assert set(watched.answered) == {"loop-watch"}
    answers = len(watched.answered)
    assert answers >= 1
    time.sleep(0.2)
    assert len(watched.answered) == answers


def test_stalls_in_quick_succession_are_counted_but_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    with caplog.at_level(logging.WARNING, loop_watch.__name__):
        asyncio.run(watched.live(0.8, 0.8, 0.8))
    assert watched.stalls.count >= 3
    assert watched.stalls.total_s > watched.stalls.longest_s
    assert caplog.text.count("its thread is at") == 1


def test_a_stall_of_the_whole_process_is_counted_when_it_is_over() -> None:
    stalls, times_s = LoopStalls(), iter([0.0, 5.0])
    watch = LoopWatch(stalls, lambda _: None, clock=lambda: next(times_s, 5.0))

    async def main() -> None:
        watch.start()
        await asyncio.sleep(0.4)
        watch.stop()

    asyncio.run(main())
    assert stalls.count == 1
    assert stalls.longest_s == pytest.approx(4.9)


def test_a_stack_names_functions_and_no_values() -> None:
    secret = "4111-1111"

    def hold(_: str, inside: threading.Event, over: threading.Event) -> None:
        inside.set()
        over.wait(10)

    inside, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(secret, inside, over))
    thread.start()
    try:
        assert inside.wait(10)
        stack = stack_of(thread.ident or 0)
    finally:
        over.set()
        thread.join()
    assert "in hold" in stack
    assert secret not in stack
    assert stack_of(thread.ident or 0) == ""
