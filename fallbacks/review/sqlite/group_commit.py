"""Inserts cases: puts that wait for the disk at the same time share one transaction.

There is no timer: while one transaction is written the next one collects, as batches of rows do. Every
caller gets the result of its own cases alone, and only once these are on the disk.

What is done for one case is in `insertion.py`.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Engine

from fallbacks.review.cases import CASE_BYTES, Case
from fallbacks.review.quotas import PutResult, Quotas
from fallbacks.review.sqlite.insertion import Limits, store_case
from fallbacks.review.sqlite.same_file import SameFile

MAX_GROUP_BYTES: Final = 2**20
"""A group ends with the put that makes it this large, so that the first put does not wait for ever more."""


class PendingPut:
    """The cases of one `put`, and once it is finished either `stored` or `error`."""

    __slots__ = ("cancelled", "cases", "error", "stored")

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self.stored: list[PutResult] | None = None
        self.error: BaseException | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Rolls the put back, unless its commit has begun."""
        self.cancelled = True


class GroupCommit:
    """The one writer of new cases. `add` from any thread; `finish` from one, which it blocks."""

    def __init__(self, engine: Engine, clock: Callable[[], float], file: SameFile) -> None:
        self._pooled = engine.raw_connection()  # the engine's only one, for as long as the store is open
        connection = self._pooled.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        self._connection = connection
        self._clock, self._file = clock, file
        self._pending: deque[PendingPut] = deque()

    def add(self, cases: Sequence[Case]) -> PendingPut:
        """Appends a put to the next transaction."""
        put = PendingPut(cases)
        self._pending.append(put)
        return put

    def finish(self, put: PendingPut, capacity: int, quotas: Quotas) -> list[PutResult]:
        """How each case of an added put ended, after the commit that stored it.

        Writes pending puts, in order, unless an earlier call has written this put together with its own.
        Raises: what the database raises; RuntimeError if the put was cancelled.
        """
        while put.stored is None and put.error is None:
            self._write(self._next_group(), capacity, quotas)
        if put.stored is None:
            assert put.error is not None
            raise put.error
        return put.stored

    def close(self) -> None:
        self._pooled.close()

    def _next_group(self) -> list[PendingPut]:
        group: list[PendingPut] = []
        size = 0
        while self._pending and size < MAX_GROUP_BYTES:
            put = self._pending.popleft()
            group.append(put)
            size += sum(len(case.payload) + CASE_BYTES for case in put.cases)
        return group

    def _write(self, group: Sequence[PendingPut], capacity: int, quotas: Quotas) -> None:
        """Finishes every put of a group. One that fails or is cancelled does not affect the others."""
        while puts := _not_cancelled(group):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:  # another process holds the lock too long: for each put alone, too
                for put in puts:
                    put.error = error
                return
            try:
                if self._store(puts, capacity, quotas):
                    return
            except BaseException as error:  # noqa: BLE001 - the callers of the puts must receive any error
                if len(puts) == 1:
                    puts[0].error = error
                    return
                for put in puts:
                    self._write([put], capacity, quotas)
                return

    def _store(self, puts: Sequence[PendingPut], capacity: int, quotas: Quotas) -> bool:
        """Stores the puts in the open transaction; False, and nothing is changed, if one was cancelled."""
        try:
            limits = Limits(self._clock(), capacity, quotas)  # the time is read with the lock held
            run = self._connection.cursor().execute
            stored = [[store_case(run, case, limits) for case in put.cases] for put in puts]
            if any(put.cancelled for put in puts):
                return False
            self._file.check()
            run("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.rollback()
        self._file.check()  # a case in a file that was deleted meanwhile gets no ticket
        for put, results in zip(puts, stored, strict=True):
            put.stored = results
        return True


def _not_cancelled(puts: Sequence[PendingPut]) -> list[PendingPut]:
    for put in puts:
        if put.cancelled:
            put.error = RuntimeError("review: given up before the commit; nothing was changed")
    return [put for put in puts if not put.cancelled]
