"""A thread that a job holds for good is replaced, a bounded number of times."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from fallbacks.worker_with_spares import GIVE_UP_S, MOST_GIVEN_UP, WorkerWithSpares


class Holding:
    """A worker whose jobs do not end until they are let go, on a clock that is `later_s` ahead."""

    def __init__(self) -> None:
        self.later_s = 0.0
        self.workers = WorkerWithSpares("w", lambda: time.monotonic() + self.later_s)
        self._let_go: list[threading.Event] = []

    async def hang(self) -> None:
        """Begins a job that hangs, and cancels it."""
        worker, entered, let_go = self.workers.free(), threading.Event(), threading.Event()
        assert worker is not None
        self._let_go.append(let_go)

        def job() -> None:
            entered.set()
            let_go.wait(60)

        call = asyncio.ensure_future(worker.call(job, lambda: None))
        await asyncio.sleep(0)
        assert entered.wait(10)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def let_go(self, which: int) -> None:
        self._let_go[which].set()
        await asyncio.sleep(0.05)

    def end(self) -> None:
        for one in self._let_go:
            one.set()
        self.workers.close()


@pytest.fixture
def holding() -> Iterator[Holding]:
    made = Holding()
    yield made
    made.end()


async def answers(workers: WorkerWithSpares) -> bool:
    worker = workers.free()
    return worker is not None and await worker.call(lambda: True, lambda: None)


def test_a_thread_that_hangs_is_replaced_once_it_had_its_time_and_no_more_often_than_may_be(
    holding: Holding,
) -> None:
    async def main() -> None:
        workers = holding.workers
        for given_up in range(MOST_GIVEN_UP + 1):
            assert await answers(workers)
            holding.later_s = 0.0
            await holding.hang()
            assert not await answers(workers), "it may still stop"
            assert not workers.lost
            holding.later_s = GIVE_UP_S
            assert workers.lost is (given_up == MOST_GIVEN_UP)
        assert not await answers(workers)

    asyncio.run(main())


@pytest.mark.parametrize("which", [0, MOST_GIVEN_UP])
def test_a_job_that_comes_back_after_all_makes_room(holding: Holding, which: int) -> None:
    async def main() -> None:
        for _ in range(MOST_GIVEN_UP + 1):
            await holding.hang()
            holding.later_s = GIVE_UP_S
        assert holding.workers.lost
        await holding.let_go(which)
        assert not holding.workers.lost
        assert await answers(holding.workers)

    asyncio.run(main())


def test_one_thread_does_all_jobs_while_none_hangs(holding: Holding) -> None:
    async def main() -> None:
        before = holding.workers.free()
        for _ in range(3):
            await holding.hang()
            await holding.let_go(-1)
            assert await answers(holding.workers)
        assert holding.workers.free() is before

    asyncio.run(main())
