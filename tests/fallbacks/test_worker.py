"""The worker: one job at a time, none after it was cancelled, and no process kept from ending."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from functools import partial
from typing import NoReturn

import pytest

from fallbacks.worker import STILL_WAITED_FOR, QueuedTooLong, Worker


def idle() -> None:
    """Nothing to stop."""


def test_runs_jobs_in_order_off_the_loop_and_hands_back_results_and_errors() -> None:
    async def main() -> None:
        worker = Worker("w")
        ran: list[int] = []

        def job(i: int) -> int:
            ran.append(i)
            return threading.get_ident()

        threads = await asyncio.gather(*(worker.call(partial(job, i), idle) for i in range(50)))
        assert ran == list(range(50))
        assert len(set(threads)) == 1 and threading.get_ident() not in threads

        def broken() -> NoReturn:
            raise OSError("disk")

        with pytest.raises(OSError, match="disk"):
            await worker.call(broken, idle)
        assert await worker.call(lambda: "alive", idle) == "alive"
        assert worker.close()

    asyncio.run(main())


def test_job_cancelled_in_the_queue_never_runs_and_one_cancelled_while_it_runs_is_asked_to_stop() -> None:
    async def main() -> None:
        worker, stop, ran = Worker("w"), threading.Event(), list[str]()
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        entered = threading.Event()

        def first() -> None:
            entered.set()
            stop.wait(10)
            ran.append("first")

        holding = asyncio.ensure_future(worker.call(first, stop.set))
        waiting = asyncio.ensure_future(worker.call(lambda: ran.append("second"), idle))
        await asyncio.sleep(0)
        assert entered.wait(10)
        assert not worker.stuck
        waiting.cancel()
        holding.cancel()
        await asyncio.gather(holding, waiting, return_exceptions=True)
        assert await worker.call(lambda: "third", idle) == "third"
        assert ran == ["first"]
        assert complaints == []
        assert not worker.stuck
        worker.close()

    asyncio.run(main())


def test_job_that_nothing_waits_for_any_more_never_runs_and_says_nothing_of_the_model() -> None:
    worker, ran, go = Worker("w"), list[str](), threading.Event()

    def job(name: str) -> None:
        ran.append(name)
        go.wait()

    async def main() -> None:
        wanted = {"first": True, "second": True, "third": True}

        async def call(name: str) -> str:
            STILL_WAITED_FOR.set(lambda: wanted[name])
            try:
                await worker.call(lambda: job(name), lambda: None)
            except QueuedTooLong:
                return "queued too long"
            return "ran"

        calls = [asyncio.create_task(call(name)) for name in wanted]
        await asyncio.sleep(0)
        wanted["second"] = False
        go.set()
        assert await asyncio.gather(*calls) == ["ran", "queued too long", "ran"]

    asyncio.run(main())
    assert ran == ["first", "third"]
    worker.close()


def test_is_stuck_while_a_cancelled_job_does_not_stop() -> None:
    async def main() -> None:
        worker, let_go, entered = Worker("w"), threading.Event(), threading.Event()

        def deaf() -> None:
            entered.set()
            let_go.wait(10)

        call = asyncio.ensure_future(worker.call(deaf, idle))
        await asyncio.sleep(0)
        assert entered.wait(10)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert worker.stuck
        assert not worker.close(wait_s=0.01)
        let_go.set()
        assert worker.close()
        assert not worker.stuck

    asyncio.run(main())


def test_closed_worker_finishes_queued_jobs_and_refuses_new_ones() -> None:
    async def main() -> None:
        worker = Worker("w")

        def slow() -> str:
            time.sleep(0.02)
            return "done"

        had = asyncio.ensure_future(worker.call(slow, idle))
        await asyncio.sleep(0)
        assert worker.close()
        assert await had == "done"
        with pytest.raises(RuntimeError, match="w: closed"):
            await worker.call(lambda: None, idle)
        assert worker.close()

    asyncio.run(main())


def test_result_for_a_closed_loop_is_dropped_and_the_worker_goes_on() -> None:
    worker, let_go = Worker("w"), threading.Event()

    async def leave() -> None:
        call = asyncio.ensure_future(worker.call(lambda: let_go.wait(10), idle))
        await asyncio.sleep(0)
        call.cancel()

    asyncio.run(leave())
    let_go.set()

    async def back() -> None:
        assert await worker.call(lambda: 1, idle) == 1

    asyncio.run(back())
    worker.close()


def test_thread_ends_when_the_worker_is_collected() -> None:
    worker = Worker("forgotten")
    thread = next(t for t in threading.enumerate() if t.name == "forgotten")
    del worker
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_interpreter_ends_promptly_and_cleanly_while_a_job_hangs() -> None:
    script = """
import asyncio, threading, time
from fallbacks.worker import Worker
stopped = threading.Event()
async def main():
    worker = Worker("w")
    global keep
    keep = worker
    try:
        async with asyncio.timeout(0.05):
            await worker.call(lambda: time.sleep(60), stopped.set)
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""
    start_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "gave up\n", "")
    assert time.monotonic() - start_s < 10


def test_a_call_that_waited_longer_than_it_ran_says_so_and_one_that_ran_does_not() -> None:
    async def main() -> None:
        worker, stop = Worker("w"), threading.Event()
        running = asyncio.ensure_future(worker.call(partial(stop.wait, 10), idle))
        waiting = asyncio.ensure_future(worker.call(idle, idle))
        await asyncio.sleep(0.05)
        for call, kind in ((waiting, QueuedTooLong), (running, asyncio.CancelledError)):
            call.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await call
            assert cancelled.type is kind
        stop.set()
        worker.close()

    asyncio.run(main())
