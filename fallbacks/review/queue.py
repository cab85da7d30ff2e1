"""The queue to a person: durable, bounded, shared by every replica on the machine.

`put` returns only when its cases are on the disk, and takes no more than `capacity` of them: past that there
is honest refusal, not an ever longer wait. SQLite's write lock guards across processes; within one, whatever
writes runs in one daemon thread, so that a slow disk never stops the event loop, and whatever reads in
another, so that a page of the console or a scrape never stops a put.

A call that is cancelled before its commit is undone: a caller who was refused for want of time leaves no case
behind. The moment of the commit itself stays unknowable; to learn what became of a case, put it again under
the same id, or `find` it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine

from fallbacks.review import statements as case_sql
from fallbacks.review.cases import (
    TABLES,
    VERSION,
    Case,
    CaseRecord,
    CaseState,
    Claim,
    StaleLease,
    Waiting,
)
from fallbacks.review.group_commit import Intake
from fallbacks.review.sqlite import BUSY_S, StoreError, open_reader, open_sqlite
from fallbacks.worker import Worker

__all__ = ["Case", "CaseRecord", "CaseState", "Claim", "ReviewQueue", "StaleLease", "StoreError", "Waiting"]

T = TypeVar("T")
MAX_PAYLOAD_BYTES: Final = 33 * 2**20
"""A row may fill a body of 8 MiB, and a number that takes two bytes there (`0,`) may take eight here."""
SWEPT: Final = 200
"""Cases that one transaction of a sweep changes at most: a put that comes meanwhile waits for no more."""


class ReviewQueue:
    """Cases in, answers out. `capacity` may be changed. Any method may raise what the database raises."""

    def __init__(
        self, engine: Engine, capacity: int, max_payload_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self.capacity = capacity
        self._max_payload_bytes = max_payload_bytes
        self._clock = clock
        self._intake = Intake(engine, clock)
        self._reader = open_reader(engine)
        self._writes, self._reads = Worker("review"), Worker("review-reads")

    @classmethod
    def open(
        cls,
        url: str,
        *,
        capacity: int = 10_000,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> ReviewQueue:
        """The queue in the file of `sqlite:///path`, made where it is missing. Blocks.

        `capacity` counts open and leased cases together; replicas that share the file should agree on it.
        `clock` gives seconds of the wall clock, because cases outlive processes.

        Raises: StoreError if the file cannot be used, saying why.
        """
        return cls(open_sqlite(url, TABLES, VERSION), capacity, max_payload_bytes, clock)

    async def put(self, cases: Sequence[Case], /) -> list[bool]:
        """Takes cases durably, in order, together or not at all; whether each is in the queue.

        False where there is no room, where the case is overdue already, or where its id stands for another
        case. An id that stands for this very case is True, full or not, and changes nothing.

        Raises: ValueError, before anything is taken, if a payload is larger than `max_payload_bytes`.
        Cost:   one wait for the disk (half a millisecond measured), shared by all puts that wait meanwhile;
                0.35 ms of CPU alone, 0.1 among sixteen, most of it in SQLite, outside the interpreter lock.
        """
        for one in cases:
            if len(one.payload) > self._max_payload_bytes:
                raise ValueError(f"case {one.id}: {len(one.payload)} bytes, over {self._max_payload_bytes}")
        if not cases:
            return []
        put = self._intake.add(cases)
        try:
            return await self._writes.call(lambda: self._intake.settle(put, self.capacity), put.give_up)
        except RuntimeError:
            put.give_up()  # a queue that is closed takes nothing more
            raise

    async def claim(self, reviewer: str, lease_s: float, limit: int = 1) -> list[Claim]:
        """Up to `limit` cases that nobody holds, the one that expires first first, leased to this reviewer.

        A lease ends after `lease_s`, or when its case expires. Each claim of a case raises its fence.
        """
        _positive(lease_s)
        return await self._write(lambda to, now_s: case_sql.claim(to, reviewer, lease_s, limit, now_s))

    async def resolve(self, case_id: str, fence: int, reviewer: str, answer: str) -> None:
        """Decides a case for good; `answer` is JSON. Raises StaleLease unless this reviewer holds it."""

        def work(to: Connection, now_s: float) -> None:
            values = {"state": CaseState.DECIDED, "answer": answer, "decided_s": now_s}
            case_sql.change_held(to, case_id, fence, now_s, values, reviewer)

        await self._write(work)

    async def renew(self, case_id: str, fence: int, lease_s: float) -> None:
        """Lets a lease that has not ended run `lease_s` from now. Raises StaleLease if it has."""
        _positive(lease_s)
        await self._write(
            lambda to, now_s: case_sql.change_held(
                to, case_id, fence, now_s, {"lease_until_s": now_s + lease_s}
            )
        )

    async def release(self, case_id: str, fence: int) -> None:
        """Hands a case back to the queue. Raises StaleLease if it is not held under this fence."""
        values = {"state": CaseState.OPEN, "lease_until_s": None}
        await self._write(lambda to, now_s: case_sql.change_held(to, case_id, fence, now_s, values))

    async def expire(self, now_s: float) -> int:
        """Stores `expired` for every case past its expiry at `now_s`; how many. Reads do not depend on it."""
        return await self._sweep(lambda to, _: case_sql.expire(to, now_s, SWEPT))

    async def purge(self, before_s: float) -> int:
        """Deletes cases decided or expired before `before_s`, payloads included, overwritten; how many."""
        return await self._sweep(lambda to, now_s: case_sql.purge(to, before_s, SWEPT, now_s))

    async def find(self, case_id: str) -> CaseRecord | None:
        """The case as it stands now, but for its payload."""
        return await self._read(lambda of, now_s: case_sql.find(of, case_id, now_s))

    async def payload(self, case_id: str) -> bytes | None:
        """What the person is asked about, in the encoding of whoever put it."""
        return await self._read(lambda of, _: case_sql.payload(of, case_id))

    async def listing(self, states: Collection[CaseState], limit: int) -> list[CaseRecord]:
        """Cases in these states: what expires first first, then the final ones, the latest first."""
        return await self._read(lambda of, now_s: case_sql.listing(of, states, limit, now_s))

    async def waiting(self) -> Waiting:
        """How many cases are in each state, and the age of the oldest that still waits."""
        return await self._read(case_sql.waiting)

    def close(self) -> None:
        """Lets what was asked finish, then closes the file. Blocks meanwhile, seconds at most. Idempotent."""
        if self._writes.close(wait_s=BUSY_S + 1):
            self._intake.close()
            self._engine.dispose()
        if self._reads.close(wait_s=BUSY_S + 1):
            self._reader.dispose()

    async def _read(self, work: Callable[[Connection, float], T]) -> T:
        def job() -> T:
            with self._reader.begin() as connection:
                return work(connection, self._clock())

        return await self._reads.call(job, lambda: None)

    async def _sweep(self, work: Callable[[Connection, float], int]) -> int:
        """Does all of a long work in short transactions."""
        done = swept = await self._write(work)
        while swept == SWEPT:
            done += (swept := await self._write(work))
        return done

    async def _write(self, work: Callable[[Connection, float], T]) -> T:
        given_up = threading.Event()

        def job() -> T:
            with (
                self._engine.begin() as connection
            ):  # waits for the write lock, so the clock is read after it
                result = work(connection, self._clock())
                if given_up.is_set():
                    raise RuntimeError("review: given up before the commit; nothing was changed")
                return result

        return await self._writes.call(job, given_up.set)


def _positive(lease_s: float) -> None:
    if not (math.isfinite(lease_s) and lease_s > 0):
        raise ValueError(f"a lease of {lease_s} s; give a positive number of seconds")
