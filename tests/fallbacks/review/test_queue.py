"""The review queue, one promise at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fallbacks.review.queue import CaseState, Claim, ReviewQueue, StaleLease, StoreError, Waiting
from tests.support.review_cases import DECIDED, EXPIRED, LEASED, OPEN, Clock, a_case

T = TypeVar("T")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Iterator[ReviewQueue]:
    one = ReviewQueue.open(f"sqlite:///{tmp_path}/review.db", capacity=3, clock=clock)
    yield one
    one.close()


def run(scene: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scene)


def states(queue: ReviewQueue) -> dict[str, int]:
    return {state: n for state, n in run(queue.waiting()).counts.items() if n}


def test_put_then_claim_then_resolve_leaves_the_answer_for_the_caller(
    queue: ReviewQueue, clock: Clock
) -> None:
    async def scene() -> None:
        assert await queue.put([a_case("a", payload=b"picture")]) == [True]
        (held,) = await queue.claim("rita", 600.0)
        assert held == Claim(a_case("a", payload=b"picture"), fence=1, until_s=1600.0)
        clock.now_s += 30
        await queue.resolve("a", held.fence, "rita", '"cat"')
        record = await queue.find("a")
        assert record is not None
        assert (record.state, record.answer, record.reviewer) == (DECIDED, '"cat"', "rita")
        assert (record.principal, record.decided_s, record.why) == ("alice", 1030.0, '{"reason": "odd"}')
        assert await queue.payload("a") == b"picture"
        assert await queue.find("b") is None
        assert await queue.payload("b") is None

    run(scene())


def test_put_takes_in_order_up_to_capacity_and_again_when_one_is_decided_or_overdue(
    queue: ReviewQueue, clock: Clock
) -> None:
    async def scene() -> None:
        assert await queue.put([a_case("a", 1500.0), *map(a_case, "bcd")]) == [True, True, True, False]
        (held,) = await queue.claim("rita", 60.0)
        assert await queue.put([a_case("d")]) == [False], "a leased case still takes its room"
        await queue.resolve(held.case.id, held.fence, "rita", "1")
        assert await queue.put([a_case("d", 1100.0)]) == [True]
        clock.now_s = 1100.0
        assert await queue.put([a_case("e")]) == [True], "an overdue case takes none, though nobody swept it"

    run(scene())


def test_put_again_is_true_even_when_full_but_never_for_another_case_under_the_same_id(
    queue: ReviewQueue,
) -> None:
    async def scene() -> None:
        cases = [a_case(name) for name in "abc"]
        assert await queue.put(cases) == [True] * 3
        (held,) = await queue.claim("rita", 60.0)
        assert await queue.put(cases) == [True] * 3
        assert await queue.put([a_case("a", principal="mallory"), a_case("b", payload=b"y")]) == [
            False,
            False,
        ]
        await queue.resolve(held.case.id, held.fence, "rita", "1")
        assert await queue.put([a_case("d"), a_case("d")]) == [True, True]
        assert await queue.put(cases) == [True] * 3, "and nothing is opened again"

    run(scene())
    assert states(queue) == {OPEN: 3, DECIDED: 1}


def test_put_of_nothing_or_of_the_overdue_takes_nothing(queue: ReviewQueue) -> None:
    assert run(queue.put([])) == []
    assert run(queue.put([a_case("a", expires_s=1000.0)])) == [False]
    assert states(queue) == {}


def test_put_of_one_too_large_takes_none_of_them(queue: ReviewQueue) -> None:
    queue._max_payload_bytes = 4
    with pytest.raises(ValueError, match="5 bytes, over 4"):
        run(queue.put([a_case("a"), a_case("b", payload=b"12345")]))
    assert states(queue) == {}


@pytest.mark.parametrize("bad_s", [float("nan"), float("inf")])
def test_times_that_are_no_times_are_refused(queue: ReviewQueue, bad_s: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        a_case("a", expires_s=bad_s)
    for lease_s in (bad_s, 0.0, -1.0):
        with pytest.raises(ValueError, match="positive"):
            run(queue.claim("rita", lease_s))


def test_claim_gives_what_expires_first_and_nothing_twice(queue: ReviewQueue) -> None:
    async def scene() -> None:
        await queue.put([a_case("late", 1900.0), a_case("soon", 1200.0), a_case("later", 1950.0)])
        assert [held.case.id for held in await queue.claim("rita", 60.0, limit=2)] == ["soon", "late"]
        assert [held.case.id for held in await queue.claim("ravi", 60.0, limit=2)] == ["later"]
        assert await queue.claim("rosa", 60.0) == []

    run(scene())


def test_lease_that_ends_hands_the_case_on_and_locks_the_late_reviewer_out(
    queue: ReviewQueue, clock: Clock
) -> None:
    async def scene() -> None:
        await queue.put([a_case("a")])
        (first,) = await queue.claim("rita", 60.0)
        clock.now_s += 60.0
        with pytest.raises(StaleLease):
            await queue.resolve("a", first.fence, "rita", "1")
        (second,) = await queue.claim("ravi", 60.0)
        assert second.fence == 2
        for late in (
            queue.resolve("a", first.fence, "rita", "1"),
            queue.renew("a", first.fence, 60.0),
            queue.release("a", first.fence),
            queue.resolve("a", second.fence, "rita", "1"),
            queue.resolve("a", second.fence + 1, "ravi", "1"),
        ):
            with pytest.raises(StaleLease):
                await late
        await queue.resolve("a", second.fence, "ravi", "2")
        with pytest.raises(StaleLease):
            await queue.resolve("a", second.fence, "ravi", "3")
        record = await queue.find("a")
        assert record is not None and record.answer == "2"

    run(scene())


def test_renewed_lease_lasts_longer_but_not_past_the_expiry(queue: ReviewQueue, clock: Clock) -> None:
    async def scene() -> None:
        await queue.put([a_case("a", expires_s=1150.0)])
        (held,) = await queue.claim("rita", 60.0)
        clock.now_s += 50.0
        await queue.renew("a", held.fence, 600.0)
        clock.now_s += 90.0
        assert await queue.claim("ravi", 60.0) == []
        clock.now_s += 10.0
        with pytest.raises(StaleLease):
            await queue.resolve("a", held.fence, "rita", "1")

    run(scene())
    assert states(queue) == {EXPIRED: 1}


def test_released_case_is_open_at_once_under_a_new_fence(queue: ReviewQueue) -> None:
    async def scene() -> None:
        await queue.put([a_case("a")])
        (held,) = await queue.claim("rita", 60.0)
        await queue.release("a", held.fence)
        with pytest.raises(StaleLease):
            await queue.resolve("a", held.fence, "rita", "1")
        (again,) = await queue.claim("rita", 60.0)
        assert again.fence == held.fence + 1

    run(scene())


def test_every_read_knows_what_is_overdue_before_any_sweep(queue: ReviewQueue, clock: Clock) -> None:
    async def scene() -> None:
        await queue.put([a_case("a", 1100.0), a_case("b", 1200.0), a_case("c", 1300.0)])
        await queue.claim("rita", 500.0, limit=2)
        assert await queue.waiting() == Waiting({OPEN: 1, LEASED: 2, DECIDED: 0, EXPIRED: 0}, 0.0)
        clock.now_s = 1250.0
        assert await queue.waiting() == Waiting({OPEN: 1, LEASED: 0, DECIDED: 0, EXPIRED: 2}, 250.0)
        found = await queue.find("a")
        assert found is not None and found.state is EXPIRED
        assert [r.id for r in await queue.listing([EXPIRED], 9)] == ["b", "a"]
        assert [r.id for r in await queue.listing([LEASED, OPEN], 9)] == ["c"]
        assert await queue.expire(clock.now_s) == 2
        assert await queue.expire(clock.now_s) == 0
        clock.now_s = 1300.0
        assert (await queue.waiting()).oldest_age_s is None

    run(scene())


def test_listing_begins_with_what_expires_first_and_ends_with_what_was_final_first(
    queue: ReviewQueue, clock: Clock
) -> None:
    async def scene() -> None:
        await queue.put([a_case("a", 1100.0), a_case("b", 1200.0), a_case("c", 1900.0)])
        for held in await queue.claim("rita", 50.0, limit=2):
            clock.now_s += 1.0
            await queue.resolve(held.case.id, held.fence, "rita", "1")
        await queue.put([a_case("d", 1800.0)])
        assert [r.id for r in await queue.listing(list(CaseState), 9)] == ["d", "c", "b", "a"]
        assert [r.id for r in await queue.listing(list(CaseState), 3)] == ["d", "c", "b"]
        assert await queue.listing([], 9) == []

    run(scene())


def test_purge_deletes_final_cases_and_their_payloads_alone(
    queue: ReviewQueue, clock: Clock, tmp_path: Path
) -> None:
    secret = b"a face nobody should find" * 10

    async def scene() -> None:
        await queue.put([a_case("a", 1100.0, secret), a_case("b", 5000.0, secret), a_case("c", 5000.0)])
        for held in await queue.claim("rita", 60.0, limit=2):
            if held.case.id == "b":
                await queue.resolve("b", held.fence, "rita", "1")
        clock.now_s = 1200.0
        assert await queue.purge(1000.0) == 0
        assert await queue.purge(9999.0) == 2
        assert [await queue.payload(name) for name in "abc"] == [None, None, b"x"]

    run(scene())
    assert states(queue) == {OPEN: 1}
    queue.close()
    assert secret not in (tmp_path / "review.db").read_bytes()


def test_cancelled_put_is_undone_while_another_process_holds_the_lock(
    queue: ReviewQueue, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "review.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await queue.put([a_case("a")])
        other.execute("ROLLBACK")
        assert await queue.put([a_case("b")]) == [True]
        assert await queue.find("a") is None

    run(scene())
    other.close()


def test_error_of_the_database_reaches_the_caller_and_changes_nothing(
    queue: ReviewQueue, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "review.db") as other:
        other.execute(
            "CREATE TRIGGER t BEFORE INSERT ON payloads WHEN NEW.id = 'b' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    other.close()
    with pytest.raises(Exception, match="no"):
        run(queue.put([a_case("a"), a_case("b")]))
    assert states(queue) == {}
    assert run(queue.put([a_case("a")])) == [True]


def test_closed_queue_refuses(queue: ReviewQueue) -> None:
    queue.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(queue.waiting())


def test_file_is_made_with_its_folders_for_this_user_only_and_commits_reach_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "odd name?.db"
    queue = ReviewQueue.open(f"sqlite:///{path}".replace("?", "%3F"))
    run(queue.put([a_case("a", 9e9)]))
    files = list(path.parent.iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert len(files) == 3
    path.chmod(0o644)
    ReviewQueue.open(str(queue._engine.url)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with queue._engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("synchronous", "journal_mode", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 2000}
    queue.close()


def damaged(path: Path) -> None:
    queue = ReviewQueue.open(f"sqlite:///{path}", capacity=100)
    run(queue.put([a_case(f"case {i}", 9e9, bytes(5000)) for i in range(50)]))
    queue.close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    path.write_bytes(content)


def another_programs(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE invoices (id)")
    other.close()


def newer(path: Path) -> None:
    ReviewQueue.open(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE schema_version SET version = 99")
    other.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b"no database at all" * 100), "not a database"),
        (lambda path: path.mkdir(), "unable to open"),
        (damaged, "damaged|malformed"),
        (another_programs, "another program's database"),
        (newer, "schema 99"),
    ],
)
def test_file_that_cannot_be_used_is_refused_at_open(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    make(tmp_path / "r.db")
    with pytest.raises(StoreError, match=says) as refused:
        ReviewQueue.open(f"sqlite:///{tmp_path}/r.db")
    assert str(refused.value).startswith(f"{tmp_path}/r.db: ")


def test_folder_that_is_a_file_is_refused_at_open(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="give a folder"):
        ReviewQueue.open(f"sqlite:///{tmp_path}/file/r.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://x/y", "review.db"])
def test_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="write sqlite:///folder"):
        ReviewQueue.open(url)
