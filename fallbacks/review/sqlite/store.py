"""A review store in one SQLite file, shared by the replicas of a machine.

SQLite's write lock is the guard between processes. Within one, every write runs in one daemon thread, so that
a slow disk never stops the event loop, and every read in another, so that neither a page of the console nor a
metrics scrape delays a put.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from fallbacks.review.cases import Case, CaseCounts, CaseRecord, CaseState, Claim
from fallbacks.review.quotas import PutResult, Quotas
from fallbacks.review.sqlite import statements
from fallbacks.review.sqlite.file import BUSY_S, open_reader, open_sqlite
from fallbacks.review.sqlite.group_commit import GroupCommit
from fallbacks.review.sqlite.reclaim import drop_final_payloads, release_free_pages
from fallbacks.review.sqlite.same_file import SameFile
from fallbacks.review.sqlite.statements import Swept
from fallbacks.review.sqlite.steady_clock import SteadyClock
from fallbacks.review.sqlite.tables import TABLES, VERSION
from fallbacks.review.sqlite.withdrawal import withdraw
from fallbacks.review.store import StoreError
from fallbacks.worker import Worker

T = TypeVar("T")
SWEEP_ROWS: Final = 200
"""The most cases that one transaction of `expire` or `purge` changes: a concurrent put waits for no more."""


class SqliteReviewStore:
    """`ReviewStore` over a SQLite file."""

    def __init__(self, engine: Engine, capacity: int, quotas: Quotas, clock: Callable[[], float]) -> None:
        self._engine = engine
        self.capacity, self.quotas = capacity, quotas
        self._clock = clock
        self._reader = open_reader(engine)
        self._file = SameFile(Path(str(engine.url.database)))
        self._group_commit = GroupCommit(engine, clock, self._file)
        self._writes, self._reads = Worker("review"), Worker("review-reads")

    @classmethod
    def open(
        cls, path: Path, *, capacity: int, clock: Callable[[], float] | None = None, quotas: Quotas = Quotas()
    ) -> SqliteReviewStore:
        """The store in this file, which is created where it is missing. Blocks. clock: of tests.

        Raises: StoreError if the file cannot be used, saying why.
        """
        engine = open_sqlite(path, TABLES, VERSION)
        try:
            drop_final_payloads(engine)
            return cls(engine, capacity, quotas, clock or SteadyClock(engine))
        except (DBAPIError, sqlite3.Error) as error:
            engine.dispose()
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise StoreError(f"{path}: {cause}; try again when no other program writes to it") from error

    def now_s(self) -> float:
        """As `ReviewStore.now_s`."""
        return self._clock()

    async def put(self, cases: Sequence[Case], /) -> list[PutResult]:
        """As `ReviewStore.put`.

        Cost:   one disk flush (half a millisecond measured), shared by all puts that wait at the same time;
                0.35 ms of CPU alone, 0.1 among sixteen, most of it in SQLite, outside the interpreter lock.
        """
        if not cases:
            return []
        put = self._group_commit.add(cases)

        def job() -> list[PutResult]:
            return self._group_commit.finish(put, self.capacity, self.quotas)

        try:
            return await self._writes.call(job, put.cancel)
        except RuntimeError:
            put.cancel()  # the store is closed: nothing may write this put later
            raise

    async def withdraw(self, case_ids: Sequence[str], /) -> int:
        """As `ReviewStore.withdraw`."""
        return await self._write(lambda to, now_s: withdraw(to, case_ids, now_s))

    async def claim(self, reviewer: str, lease_s: float, limit: int = 1) -> list[Claim]:
        """As `ReviewStore.claim`."""
        _require_positive(lease_s)
        return await self._write(lambda to, now_s: statements.claim(to, reviewer, lease_s, limit, now_s))

    async def resolve(self, case_id: str, fence: int, reviewer: str, answer: str) -> None:
        """As `ReviewStore.resolve`."""

        def work(to: Connection, now_s: float) -> None:
            values = {"state": CaseState.DECIDED, "answer": answer, "decided_s": now_s}
            statements.change_leased(to, case_id, fence, now_s, values, reviewer)

        await self._write(work)

    async def renew(self, case_id: str, fence: int, lease_s: float) -> None:
        """As `ReviewStore.renew`."""
        _require_positive(lease_s)
        await self._write(
            lambda to, now_s: statements.change_leased(
                to, case_id, fence, now_s, {"lease_until_s": now_s + lease_s}
            )
        )

    async def release(self, case_id: str, fence: int) -> None:
        """As `ReviewStore.release`."""
        values = {"state": CaseState.OPEN, "lease_until_s": None}
        await self._write(lambda to, now_s: statements.change_leased(to, case_id, fence, now_s, values))

    async def find(self, case_id: str) -> CaseRecord | None:
        """As `ReviewStore.find`."""
        return (await self.find_all([case_id])).get(case_id)

    async def find_all(self, case_ids: Collection[str]) -> dict[str, CaseRecord]:
        """As `ReviewStore.find_all`."""
        return await self._read(lambda of, now_s: statements.find_all(of, case_ids, now_s))

    async def decided_within(self, seconds: float) -> list[str]:
        """As `ReviewStore.decided_within`."""
        return await self._read(lambda of, now_s: statements.decided_since(of, now_s - seconds))

    async def payload(self, case_id: str) -> bytes | None:
        """As `ReviewStore.payload`."""
        return await self._read(lambda of, _: statements.payload(of, case_id))

    async def list_cases(self, states: Collection[CaseState], limit: int) -> list[CaseRecord]:
        """As `ReviewStore.list_cases`."""
        return await self._read(lambda of, now_s: statements.list_cases(of, states, limit, now_s))

    async def counts(self) -> CaseCounts:
        """As `ReviewStore.counts`. Raises StoreError if the file has gone."""

        def work(of: Connection, now_s: float) -> CaseCounts:
            self._file.check()
            return statements.counts(of, now_s)

        return await self._read(work)

    async def expire(self, now_s: float) -> int:
        """As `ReviewStore.expire`. It keeps the store's time as well."""
        if isinstance(self._clock, SteadyClock):
            clock = self._clock
            await self._write(lambda to, _: clock.keep(to))
        return await self._sweep(lambda to, _: statements.expire(to, now_s, SWEEP_ROWS))

    async def purge(self, before_s: float, expired_before_s: float | None = None) -> int:
        """As `ReviewStore.purge`."""
        before = (before_s, before_s if expired_before_s is None else expired_before_s)
        deleted = await self._sweep(lambda to, now_s: statements.purge(to, *before, SWEEP_ROWS, now_s))
        while await self._writes.call(lambda: release_free_pages(self._engine)):
            pass
        return deleted

    def close(self) -> None:
        """As `ReviewStore.close`."""
        if self._writes.close(wait_s=BUSY_S + 1):
            self._group_commit.close()
            self._engine.dispose()
        if self._reads.close(wait_s=BUSY_S + 1):
            self._reader.dispose()

    async def _read(self, work: Callable[[Connection, float], T]) -> T:
        def job() -> T:
            with self._reader.begin() as connection:
                return work(connection, self._clock())

        return await self._reads.call(job)

    async def _sweep(self, work: Callable[[Connection, float], Swept]) -> int:
        """Repeats a change of up to SWEEP_ROWS rows, each in a transaction of its own; how many cases."""
        total, more = 0, True
        while more:
            changed, more = await self._write(work)
            total += changed
        return total

    async def _write(self, work: Callable[[Connection, float], T]) -> T:
        cancelled = threading.Event()

        def job() -> T:
            with (
                self._engine.begin() as connection
            ):  # waits for the write lock, so the clock is read after it
                result = work(connection, self._clock())
                self._file.check()
                if cancelled.is_set():
                    raise RuntimeError("review: given up before the commit; nothing was changed")
            self._file.check()
            return result

        return await self._writes.call(job, cancelled.set)


def _require_positive(lease_s: float) -> None:
    if not (math.isfinite(lease_s) and lease_s > 0):
        raise ValueError(f"a lease of {lease_s} s; give a positive number of seconds")
