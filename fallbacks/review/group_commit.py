"""How cases come in: puts that wait for the disk at the same time share one transaction.

There is no timer: while one transaction is written the next one collects, as batches of rows do. Every
caller still hears of their own cases alone, and only once these are on the disk.

The statements are SQLAlchemy Core, compiled once, but they run at the driver's cursor. This is the one place
where that counts: rows go to people from the middle of the request path, the interpreter's time is what
limits a replica, and Core takes 18 us a statement and 35 us a transaction where the driver takes 2. Another
database needs another compilation here, and its own way to wait for the write lock.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Engine,
    Float,
    Integer,
    bindparam,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects.sqlite import dialect

from fallbacks.review.cases import CASES, COUNTS, PAYLOADS, WAITING, Case, CaseState
from fallbacks.review.statements import LATE, NOW, STORED_WAITING

MOST_BYTES: Final = 2**20
CASE_BYTES: Final = 4096
"""A group ends with the case that makes it this large, so that who came first does not wait for ever more.

A case counts as its payload and what else is written with it."""


def _compiled(statement: ClauseElement) -> str:
    return str(statement.compile(dialect=dialect(paramstyle="named")))


def _take() -> str:
    """Inserts a case if it is not overdue, not known, and there is room. All is decided in the database."""
    names = ("id", "principal", "created_s", "expires_s", "why", "model_view")
    given = [bindparam(name, type_=CASES.c[name].type) for name in names]
    waiting: list[ColumnElement[str]] = [literal_column(f"'{state}'") for state in WAITING]
    stored = select(func.sum(COUNTS.c.n)).where(COUNTS.c.state.in_(waiting)).scalar_subquery()
    overdue = select(func.count()).select_from(CASES).where(STORED_WAITING, LATE).scalar_subquery()
    known = select(CASES.c.id).where(CASES.c.id == bindparam("id")).exists()
    values = select(*given, literal_column(f"'{CaseState.OPEN}'"), literal_column("0")).where(
        bindparam("expires_s", type_=Float) > NOW,
        ~known,
        stored - overdue < bindparam("capacity", type_=Integer),
    )
    return _compiled(insert(CASES).from_select([*names, "state", "fence"], values))


def _same() -> str:
    """Finds a case only if it is this very one."""
    wanted = (CASES.c.id == bindparam("id"), CASES.c.principal == bindparam("principal"))
    same = select(CASES.c.id).join(PAYLOADS, CASES.c.id == PAYLOADS.c.id)
    return _compiled(same.where(*wanted, PAYLOADS.c.payload == bindparam("payload")))


_TAKE, _SAME = _take(), _same()
_KEEP = _compiled(insert(PAYLOADS))


class Put:
    """One caller's cases, and what became of them: `taken` or `error`, once they are settled."""

    __slots__ = ("cases", "error", "given_up", "taken")

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self.taken: list[bool] | None = None
        self.error: BaseException | None = None
        self.given_up = False

    def give_up(self) -> None:
        """Nobody waits for it any more: it is undone, unless its commit has begun."""
        self.given_up = True


class Intake:
    """The one writer of new cases. `add` from any thread; `settle` from one, which it blocks."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._lent = engine.raw_connection()  # the engine's only one, for as long as the queue is open
        connection = self._lent.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        self._connection = connection
        self._clock = clock
        self._waiting: deque[Put] = deque()

    def add(self, cases: Sequence[Case]) -> Put:
        """Lets cases wait for the next transaction."""
        put = Put(cases)
        self._waiting.append(put)
        return put

    def settle(self, put: Put, capacity: int) -> list[bool]:
        """Whether each case of a put that was added is in the queue, once it is on the disk, if it is.

        Writes what waits, in order, unless an earlier call has written this put along with its own.
        Raises: what the database raises; RuntimeError if the put was given up.
        """
        while put.taken is None and put.error is None:
            self._write(self._next_group(), capacity)
        if put.taken is None:
            assert put.error is not None
            raise put.error
        return put.taken

    def close(self) -> None:
        self._lent.close()

    def _next_group(self) -> list[Put]:
        group: list[Put] = []
        size = 0
        while self._waiting and size < MOST_BYTES:
            put = self._waiting.popleft()
            group.append(put)
            size += sum(len(one.payload) + CASE_BYTES for one in put.cases)
        return group

    def _write(self, group: Sequence[Put], capacity: int) -> None:
        """Settles every put of a group. Where one of them fails or is given up, the others do not suffer."""
        while wanted := _still_wanted(group):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:  # another process wrote for too long: it would for each alone too
                for put in wanted:
                    put.error = error
                return
            try:
                if self._take(wanted, capacity):
                    return
            except BaseException as error:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
                if len(wanted) == 1:
                    wanted[0].error = error
                    return
                for put in wanted:
                    self._write([put], capacity)
                return

    def _take(self, puts: Sequence[Put], capacity: int) -> bool:
        """Takes all of it in the open transaction; False, and nothing is changed, if somebody gave up."""
        try:
            given = {"now_s": self._clock(), "capacity": capacity}  # the lock is had, so the time is now
            run = self._connection.cursor().execute
            taken = [[_taken(run, one, given) for one in put.cases] for put in puts]
            if any(put.given_up for put in puts):
                return False
            run("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.rollback()
        for put, its in zip(puts, taken, strict=True):
            put.taken = its
        return True


def _still_wanted(puts: Sequence[Put]) -> list[Put]:
    for put in puts:
        if put.given_up:
            put.error = RuntimeError("review: given up before the commit; nothing was changed")
    return [put for put in puts if not put.given_up]


def _taken(run: Callable[..., sqlite3.Cursor], one: Case, given: dict[str, Any]) -> bool:
    """Takes one case into the open transaction, if it may be; whether it is in the queue."""
    values = {
        "id": one.id,
        "principal": one.principal,
        "created_s": one.created_s,
        "expires_s": one.expires_s,
        "why": one.why,
        "model_view": one.model_view,
        "payload": one.payload,
    }
    if run(_TAKE, values | given).rowcount == 1:
        run(_KEEP, values)
        return True
    return run(_SAME, values).fetchone() is not None
