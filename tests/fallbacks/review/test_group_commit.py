"""How cases come in: many puts share a transaction, and each caller still hears of their own cases alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine

from fallbacks.review import group_commit as intake
from fallbacks.review import queue as review
from fallbacks.review.queue import CaseState, ReviewQueue
from tests.support.review_cases import DECIDED, EXPIRED, LEASED, OPEN, Clock, a_case

T = TypeVar("T")


class Gate(Clock):
    """The queue's clock, which it reads once it has the write lock: there it can be held up."""

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
def queue(tmp_path: Path, gate: Gate) -> Iterator[ReviewQueue]:
    one = ReviewQueue.open(f"sqlite:///{tmp_path}/review.db", capacity=1000, clock=gate)
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


def commits_of(queue: ReviewQueue) -> list[str]:
    """Grows with every transaction that the queue commits."""
    commits: list[str] = []
    driver_of(queue._engine).set_trace_callback(
        lambda text: commits.append(text) if text == "COMMIT" else None
    )
    return commits


async def held_up(gate: Gate, queue: ReviewQueue) -> asyncio.Task[list[bool]]:
    """A put that has the write lock and goes no further until the gate is open."""
    gate.reached.clear()
    gate.open.clear()
    first = asyncio.create_task(queue.put([a_case("first")]))
    await asyncio.to_thread(gate.reached.wait, 10.0)
    return first


async def behind(queue: ReviewQueue, *names: str) -> list[asyncio.Task[list[bool]]]:
    """Puts of one case each that wait, in order, for the one that is held up."""
    tasks = [asyncio.create_task(queue.put([a_case(name)])) for name in names]
    await asyncio.sleep(0)
    return tasks


def test_puts_that_wait_share_the_next_transaction(queue: ReviewQueue, gate: Gate) -> None:
    async def scene() -> None:
        commits = commits_of(queue)
        first = await held_up(gate, queue)
        tasks = await behind(queue, *(f"{i}" for i in range(40)))
        gate.open.set()
        assert await first == [True]
        assert await asyncio.gather(*tasks) == [[True]] * 40
        assert len(commits) == 2

    run(scene())


def test_a_put_that_waits_for_nobody_has_a_transaction_of_its_own(queue: ReviewQueue) -> None:
    async def scene() -> None:
        commits = commits_of(queue)
        for i in range(3):
            assert await queue.put([a_case(f"{i}")]) == [True]
            assert len(commits) == i + 1

    run(scene())


def test_a_group_is_taken_in_order_up_to_the_capacity(queue: ReviewQueue, gate: Gate) -> None:
    async def scene() -> None:
        queue.capacity = 4
        first = await held_up(gate, queue)
        tasks = await behind(queue, "a", "b", "a")
        tasks.append(asyncio.create_task(queue.put([a_case("c"), a_case("d"), a_case("b")])))
        tasks += await behind(queue, "e")
        gate.open.set()
        assert await first == [True]
        assert await asyncio.gather(*tasks) == [[True], [True], [True], [True, False, True], [False]]

    run(scene())


def test_whoever_gives_up_before_the_commit_is_undone_and_the_others_are_not(
    queue: ReviewQueue, gate: Gate
) -> None:
    async def scene() -> None:
        queue.capacity = 2
        first = await held_up(gate, queue)
        tasks = await behind(queue, "a", "b")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.reached.clear()
        gate.open.set()
        assert await asyncio.gather(*tasks) == [[True], [True]], "its room is theirs"
        assert await queue.find("first") is None

    run(scene())


def test_one_of_a_group_that_gives_up_while_it_is_written_leaves_nothing_behind(
    queue: ReviewQueue, gate: Gate
) -> None:
    async def scene() -> None:
        first = await held_up(gate, queue)
        tasks = await behind(queue, "a", "b", "c")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.reached.clear()
        gate.open.set()
        gate.open.clear()  # whoever waited goes on, and the group of three is held up in their place
        await asyncio.to_thread(gate.reached.wait, 10.0)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        gate.open.set()
        assert await tasks[0] == await tasks[2] == [True]
        assert await queue.find("b") is None
        assert (await queue.waiting()).counts[OPEN] == 2

    run(scene())


def test_an_error_of_one_put_is_not_an_error_of_its_neighbours(
    queue: ReviewQueue, gate: Gate, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "review.db") as other:
        other.execute(
            "CREATE TRIGGER t BEFORE INSERT ON payloads WHEN NEW.id = 'b' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    other.close()

    async def scene() -> None:
        first = await held_up(gate, queue)
        tasks = await behind(queue, "a", "b", "c")
        gate.open.set()
        ends = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [ends[i] for i in (0, 1, 3)] == [[True]] * 3
        assert isinstance(ends[2], sqlite3.IntegrityError)
        assert await queue.find("b") is None

    run(scene())


def test_a_lock_that_is_not_to_be_had_is_waited_for_once_not_once_a_put(
    queue: ReviewQueue, tmp_path: Path
) -> None:
    driver_of(queue._engine).execute("PRAGMA busy_timeout = 100")
    other = sqlite3.connect(tmp_path / "review.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def scene() -> None:
        async with asyncio.timeout(2.0):
            ends = await asyncio.gather(
                *(queue.put([a_case(f"{i}")]) for i in range(50)), return_exceptions=True
            )
        assert {type(end) for end in ends} == {sqlite3.OperationalError}
        other.execute("ROLLBACK")
        assert await queue.put([a_case("after")]) == [True]
        assert (await queue.waiting()).counts[OPEN] == 1

    run(scene())
    other.close()


def test_a_group_of_large_cases_ends_before_who_came_first_waits_too_long(
    queue: ReviewQueue, gate: Gate
) -> None:
    async def scene() -> None:
        commits = commits_of(queue)
        first = await held_up(gate, queue)
        half = bytes(intake.MOST_BYTES // 2)
        tasks = [asyncio.create_task(queue.put([a_case(f"{i}", payload=half)])) for i in range(6)]
        await asyncio.sleep(0)
        gate.open.set()
        assert await first == [True]
        assert await asyncio.gather(*tasks) == [[True]] * 6
        assert len(commits) == 1 + 3

    run(scene())


def test_a_put_to_a_closed_queue_is_refused_and_never_written(queue: ReviewQueue, tmp_path: Path) -> None:
    queue.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(queue.put([a_case("late")]))
    with sqlite3.connect(tmp_path / "review.db") as other:
        assert other.execute("SELECT count(*) FROM cases").fetchone() == (0,)
    other.close()


def test_whoever_reads_does_not_wait_for_whoever_writes(queue: ReviewQueue, gate: Gate) -> None:
    async def scene() -> None:
        first = await held_up(gate, queue)
        async with asyncio.timeout(5.0):
            assert await queue.find("first") is None
            assert (await queue.waiting()).counts[OPEN] == 0
            assert await queue.listing([OPEN], 9) == []
        gate.open.set()
        assert await first == [True]
        assert await queue.find("first") is not None, "what was acknowledged is read"

    run(scene())


def test_a_reader_cannot_write(queue: ReviewQueue) -> None:
    with queue._reader.begin() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM cases")


async def steps(queue: ReviewQueue) -> dict[str, int]:
    """How many steps of SQLite's machine each call takes: a measure that no load of the machine changes."""
    made: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "put": lambda: queue.put([a_case("new", 5000.0)]),
        "list": lambda: queue.listing(list(CaseState), 3),
        "count": queue.waiting,
        "claim": lambda: queue.claim("rita", 60.0),
        "expire": lambda: queue.expire(queue._clock()),
        "purge": lambda: queue.purge(queue._clock() - 500.0),
    }
    ticks: list[None] = []
    driver_of(queue._engine).set_progress_handler(lambda: ticks.append(None), 1)
    driver_of(queue._reader).set_progress_handler(lambda: ticks.append(None), 1)
    taken: dict[str, int] = {}
    for name, call in made.items():
        ticks.clear()
        await call()
        taken[name] = len(ticks)
    return taken


def test_nothing_costs_more_because_many_cases_wait_or_are_kept(tmp_path: Path) -> None:
    async def filled(n: int) -> dict[str, int]:
        clock = Clock()
        queue = ReviewQueue.open(f"sqlite:///{tmp_path}/{n}.db", capacity=10**6, clock=clock)
        await queue.put([a_case(f"late{i}", 1500.0 + i / n) for i in range(n)])
        await queue.put([a_case(f"done{i}", 1600.0 + i / n) for i in range(n)])
        clock.now_s = 1550.0
        await queue.expire(clock.now_s)
        for claim in await queue.claim("rita", 10.0, n):
            clock.now_s += 0.01
            await queue.resolve(claim.case.id, claim.fence, "rita", "1")
        await queue.put([a_case(f"open{i}", 4000.0 + i / n) for i in range(n)])
        counts = (await queue.waiting()).counts
        assert counts == {OPEN: n, LEASED: 0, DECIDED: n, EXPIRED: n}
        taken = await steps(queue)
        queue.close()
        return taken

    few, many = run(filled(20)), run(filled(400))
    for name, taken in few.items():
        assert many[name] < 1.5 * taken, (name, taken, many[name])


def test_a_sweep_lets_puts_in_between(queue: ReviewQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "SWEPT", 10)

    async def scene() -> None:
        await queue.put([a_case(f"{i}", 1001.0) for i in range(100)])
        queue._clock.now_s = 1002.0  # type: ignore[attr-defined]
        ended: list[str] = []

        async def told(name: str, call: Coroutine[Any, Any, Any]) -> Any:
            result = await call
            ended.append(name)
            return result

        swept = asyncio.create_task(told("sweep", queue.expire(1002.0)))
        await asyncio.sleep(0)
        assert await told("put", queue.put([a_case("new")])) == [True]
        assert await swept == 100
        assert ended == ["put", "sweep"]
        assert await queue.purge(1002.0) == 100

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
    queue = ReviewQueue.open(f"sqlite:///{tmp_path}/r.db", capacity=4, clock=gate)
    assert run(queue.waiting()).counts == {OPEN: 2, LEASED: 0, DECIDED: 0, EXPIRED: 1}
    with older:
        older.execute(INSERT, ("d", "open"))
        older.execute("DELETE FROM cases WHERE id = 'c'")
    assert run(queue.waiting()).counts == {OPEN: 3, LEASED: 0, DECIDED: 0, EXPIRED: 0}
    assert run(queue.put([a_case("e"), a_case("f")])) == [True, False]
    older.close()
    queue.close()


def test_counts_that_are_wrong_are_mended_when_the_queue_is_opened(
    queue: ReviewQueue, tmp_path: Path
) -> None:
    run(queue.put([a_case("a"), a_case("b")]))
    with sqlite3.connect(tmp_path / "review.db") as other:
        other.execute("UPDATE case_counts SET n = 77")
    other.close()
    again = ReviewQueue.open(f"sqlite:///{tmp_path}/review.db")
    assert run(again.waiting()).counts == {OPEN: 0, LEASED: 0, DECIDED: 0, EXPIRED: 2}, "by the true clock"
    assert run(queue.waiting()).counts == {OPEN: 2, LEASED: 0, DECIDED: 0, EXPIRED: 0}
    again.close()
