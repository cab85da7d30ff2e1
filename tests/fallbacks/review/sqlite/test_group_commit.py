"""Group commit: many puts share a transaction, and each caller gets the result of its own cases alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine

from fallbacks.review.cases import CaseState
from fallbacks.review.quotas import PutResult
from fallbacks.review.sqlite import group_commit
from fallbacks.review.sqlite import store as sqlite_store
from fallbacks.review.sqlite.store import SqliteReviewStore
from tests.support.review_cases import DECIDED, EXPIRED, FULL, LEASED, OPEN, STORED, Clock, a_case

T = TypeVar("T")


class Gate(Clock):
    """A clock that can block the store's writer, which reads it while it holds the write lock."""

    def __init__(self) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        self.open.set()

    def __call__(self) -> float:
        if threading.current_thread().name == "review":
            self.reached.set()
            assert self.open.wait(10.0)
        return self.now_s


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def store(tmp_path: Path, gate: Gate) -> Iterator[SqliteReviewStore]:
    one = SqliteReviewStore.open(tmp_path / "review.db", capacity=1000, clock=gate)
    yield one
    gate.open.set()
    one.close()


def run(scene: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scene)


def driver_of(engine: Engine) -> sqlite3.Connection:
    """The one connection of an engine."""
    connection = engine.raw_connection().driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


def commits_of(store: SqliteReviewStore) -> list[str]:
    """Grows with every transaction that the store commits."""
    commits: list[str] = []
    driver_of(store._engine).set_trace_callback(
        lambda text: commits.append(text) if text == "COMMIT" else None
    )
    return commits


async def held_up(gate: Gate, store: SqliteReviewStore) -> asyncio.Task[list[PutResult]]:
    """A put that holds the write lock and does not go on until the gate is open."""
    gate.reached.clear()
    gate.open.clear()
    first = asyncio.create_task(store.put([a_case("first")]))
    await asyncio.to_thread(gate.reached.wait, 10.0)
    return first


async def behind(store: SqliteReviewStore, *names: str) -> list[asyncio.Task[list[PutResult]]]:
    """Puts of one case each that wait, in order, for the one that is held up."""
    tasks = [asyncio.create_task(store.put([a_case(name)])) for name in names]
    await asyncio.sleep(0)
    return tasks


def test_puts_that_wait_share_the_next_transaction(store: SqliteReviewStore, gate: Gate) -> None:
    async def scene() -> None:
        commits = commits_of(store)
        first = await held_up(gate, store)
        tasks = await behind(store, *(f"{i}" for i in range(40)))
        gate.open.set()
        assert await first == [STORED]
        assert await asyncio.gather(*tasks) == [[STORED]] * 40
        assert len(commits) == 2

    run(scene())


def test_a_put_alone_has_a_transaction_of_its_own(store: SqliteReviewStore) -> None:
    async def scene() -> None:
        commits = commits_of(store)
        for i in range(3):
            assert await store.put([a_case(f"{i}")]) == [STORED]
            assert len(commits) == i + 1

    run(scene())


def test_a_group_is_taken_in_order_up_to_the_capacity(store: SqliteReviewStore, gate: Gate) -> None:
    async def scene() -> None:
        store.capacity = 4
        first = await held_up(gate, store)
        tasks = await behind(store, "a", "b", "a")
        tasks.append(asyncio.create_task(store.put([a_case("c"), a_case("d"), a_case("b")])))
        tasks += await behind(store, "e")
        gate.open.set()
        assert await first == [STORED]
        assert await asyncio.gather(*tasks) == [[STORED], [STORED], [STORED], [STORED, FULL, STORED], [FULL]]

    run(scene())


def test_put_cancelled_before_its_commit_is_rolled_back_and_the_others_are_not(
    store: SqliteReviewStore, gate: Gate
) -> None:
    async def scene() -> None:
        store.capacity = 2
        first = await held_up(gate, store)
        tasks = await behind(store, "a", "b")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.reached.clear()
        gate.open.set()
        assert await asyncio.gather(*tasks) == [[STORED], [STORED]], "the room of the cancelled put is free"
        assert await store.find("first") is None

    run(scene())


def test_put_cancelled_while_its_group_is_written_stores_nothing(
    store: SqliteReviewStore, gate: Gate
) -> None:
    async def scene() -> None:
        first = await held_up(gate, store)
        tasks = await behind(store, "a", "b", "c")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.reached.clear()
        gate.open.set()
        gate.open.clear()  # the first put ends, and the group of three is held up in its place
        await asyncio.to_thread(gate.reached.wait, 10.0)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        gate.open.set()
        assert await tasks[0] == await tasks[2] == [STORED]
        assert await store.find("b") is None
        assert (await store.counts()).by_state[OPEN] == 2

    run(scene())


def test_an_error_of_one_put_is_not_an_error_of_its_neighbours(
    store: SqliteReviewStore, gate: Gate, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "review.db") as other:
        other.execute(
            "CREATE TRIGGER t BEFORE INSERT ON payloads WHEN NEW.id = 'b' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    other.close()

    async def scene() -> None:
        first = await held_up(gate, store)
        tasks = await behind(store, "a", "b", "c")
        gate.open.set()
        ends = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [ends[i] for i in (0, 1, 3)] == [[STORED]] * 3
        assert isinstance(ends[2], sqlite3.IntegrityError)
        assert await store.find("b") is None

    run(scene())


def test_a_lock_that_another_process_holds_is_waited_for_once_not_once_a_put(
    store: SqliteReviewStore, tmp_path: Path
) -> None:
    driver_of(store._engine).execute("PRAGMA busy_timeout = 100")
    other = sqlite3.connect(tmp_path / "review.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def scene() -> None:
        async with asyncio.timeout(2.0):
            ends = await asyncio.gather(
                *(store.put([a_case(f"{i}")]) for i in range(50)), return_exceptions=True
            )
        assert {type(end) for end in ends} == {sqlite3.OperationalError}
        other.execute("ROLLBACK")
        assert await store.put([a_case("after")]) == [STORED]
        assert (await store.counts()).by_state[OPEN] == 1

    run(scene())
    other.close()


def test_large_cases_are_written_in_several_groups(store: SqliteReviewStore, gate: Gate) -> None:
    async def scene() -> None:
        commits = commits_of(store)
        first = await held_up(gate, store)
        half = bytes(group_commit.MAX_GROUP_BYTES // 2)
        tasks = [asyncio.create_task(store.put([a_case(f"{i}", payload=half)])) for i in range(6)]
        await asyncio.sleep(0)
        gate.open.set()
        assert await first == [STORED]
        assert await asyncio.gather(*tasks) == [[STORED]] * 6
        assert len(commits) == 1 + 3

    run(scene())


def test_a_put_to_a_closed_store_is_refused_and_never_written(
    store: SqliteReviewStore, tmp_path: Path
) -> None:
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(store.put([a_case("late")]))
    with sqlite3.connect(tmp_path / "review.db") as other:
        assert other.execute("SELECT count(*) FROM cases").fetchone() == (0,)
    other.close()


def test_a_read_does_not_wait_for_a_write(store: SqliteReviewStore, gate: Gate) -> None:
    async def scene() -> None:
        first = await held_up(gate, store)
        async with asyncio.timeout(5.0):
            assert await store.find("first") is None
            assert (await store.counts()).by_state[OPEN] == 0
            assert await store.list_cases([OPEN], 9) == []
        gate.open.set()
        assert await first == [STORED]
        assert await store.find("first") is not None, "an acknowledged case is read"

    run(scene())


def test_a_reader_cannot_write(store: SqliteReviewStore) -> None:
    with store._reader.begin() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM cases")


async def steps(store: SqliteReviewStore) -> dict[str, int]:
    """How many steps of SQLite's machine each call takes: a measure that no load of the machine changes."""
    made: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "put": lambda: store.put([a_case("new", 5000.0)]),
        "list": lambda: store.list_cases(list(CaseState), 3),
        "count": store.counts,
        "claim": lambda: store.claim("rita", 60.0),
        "expire": lambda: store.expire(store._clock()),
        "purge": lambda: store.purge(store._clock() - 500.0),
    }
    ticks: list[None] = []
    driver_of(store._engine).set_progress_handler(lambda: ticks.append(None), 1)
    driver_of(store._reader).set_progress_handler(lambda: ticks.append(None), 1)
    taken: dict[str, int] = {}
    for name, call in made.items():
        ticks.clear()
        await call()
        taken[name] = len(ticks)
    return taken


def test_nothing_costs_more_because_many_cases_wait_or_are_kept(tmp_path: Path) -> None:
    async def filled(n: int) -> dict[str, int]:
        clock = Clock()
        store = SqliteReviewStore.open(tmp_path / f"{n}.db", capacity=10**6, clock=clock)
        await store.put([a_case(f"late{i}", 1500.0 + i / n) for i in range(n)])
        await store.put([a_case(f"done{i}", 1600.0 + i / n) for i in range(n)])
        clock.now_s = 1550.0
        await store.expire(clock.now_s)
        for claim in await store.claim("rita", 10.0, n):
            clock.now_s += 0.01
            await store.resolve(claim.case.id, claim.fence, "rita", "1")
        await store.put([a_case(f"open{i}", 4000.0 + i / n) for i in range(n)])
        counts = (await store.counts()).by_state
        assert counts == {OPEN: n, LEASED: 0, DECIDED: n, EXPIRED: n}
        taken = await steps(store)
        store.close()
        return taken

    few, many = run(filled(20)), run(filled(400))
    for name, taken in few.items():
        assert many[name] < 1.5 * taken, (name, taken, many[name])


def test_a_sweep_lets_puts_in_between(store: SqliteReviewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "SWEEP_ROWS", 10)

    async def scene() -> None:
        await store.put([a_case(f"{i}", 1001.0) for i in range(100)])
        store._clock.now_s = 1002.0  # type: ignore[attr-defined]
        ended: list[str] = []

        async def record_end(name: str, call: Coroutine[Any, Any, Any]) -> Any:
            result = await call
            ended.append(name)
            return result

        swept = asyncio.create_task(record_end("sweep", store.expire(1002.0)))
        await asyncio.sleep(0)
        assert await record_end("put", store.put([a_case("new")])) == [STORED]
        assert await swept == 100
        assert ended == ["put", "sweep"]
        assert await store.purge(1002.0) == 100

    run(scene())


V1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO schema_version VALUES (1);
CREATE TABLE cases (id TEXT NOT NULL, principal TEXT NOT NULL, created_s FLOAT NOT NULL,
    expires_s FLOAT NOT NULL, why TEXT NOT NULL, model_view TEXT NOT NULL, state TEXT NOT NULL,
    fence INTEGER NOT NULL, reviewer TEXT, lease_until_s FLOAT, answer TEXT, decided_s FLOAT,
    PRIMARY KEY (id));
CREATE INDEX cases_by_state ON cases (state, expires_s, created_s, id);
CREATE TABLE payloads (id TEXT NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(id) REFERENCES cases (id) ON DELETE CASCADE);
"""
INSERT = """INSERT INTO cases (id, principal, created_s, expires_s, why, model_view, state, fence)
    VALUES (?, 'alice', 1000, 2000, '{}', '[]', ?, 0)"""


def test_a_file_of_an_older_release_is_counted_and_that_release_may_go_on(tmp_path: Path, gate: Gate) -> None:
    with sqlite3.connect(tmp_path / "r.db") as older:
        older.executescript(V1)
        older.executemany(INSERT, [("a", "open"), ("b", "open"), ("c", "expired")])
    store = SqliteReviewStore.open(tmp_path / "r.db", capacity=4, clock=gate)
    assert run(store.counts()).by_state == {OPEN: 2, LEASED: 0, DECIDED: 0, EXPIRED: 1}
    with older:
        older.execute(INSERT, ("d", "open"))
        older.execute("DELETE FROM cases WHERE id = 'c'")
    assert run(store.counts()).by_state == {OPEN: 3, LEASED: 0, DECIDED: 0, EXPIRED: 0}
    assert run(store.put([a_case("e"), a_case("f")])) == [STORED, FULL]
    older.close()
    store.close()


def test_wrong_counts_are_corrected_when_the_store_is_opened(
    store: SqliteReviewStore, tmp_path: Path
) -> None:
    run(store.put([a_case("a"), a_case("b")]))
    with sqlite3.connect(tmp_path / "review.db") as other:
        other.execute("UPDATE case_counts SET n = 77")
    other.close()
    again = SqliteReviewStore.open(tmp_path / "review.db", capacity=9, clock=time.time)
    assert run(again.counts()).by_state == {OPEN: 0, LEASED: 0, DECIDED: 0, EXPIRED: 2}, "by the true clock"
    assert run(store.counts()).by_state == {OPEN: 2, LEASED: 0, DECIDED: 0, EXPIRED: 0}
    again.close()
