"""What the SQLite review store does beyond the contract: locks, files, and databases that it must refuse."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fallbacks.review.cases import CaseState
from fallbacks.review.sqlite.store import SqliteReviewStore
from fallbacks.review.store import StoreError
from tests.support.review_cases import STORED, Clock, a_case

T = TypeVar("T")


def open_file(path: Path, capacity: int = 3, clock: Callable[[], float] = Clock()) -> SqliteReviewStore:
    return SqliteReviewStore.open(path, capacity=capacity, clock=clock)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteReviewStore]:
    store = open_file(tmp_path / "review.db")
    yield store
    store.close()


def run(scene: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scene)


def test_purged_payload_is_overwritten_in_the_file(store: SqliteReviewStore, tmp_path: Path) -> None:
    secret = b"a face that must not be found" * 10

    async def scene() -> None:
        await store.put([a_case("a", 1100.0, secret), a_case("b", 5000.0, secret), a_case("c", 5000.0)])
        for claim in await store.claim("rita", 60.0, limit=2):
            if claim.case.id == "b":
                await store.resolve("b", claim.fence, "rita", "1")
        store._clock.now_s = 1200.0  # type: ignore[attr-defined]
        assert await store.purge(9999.0) == 2

    run(scene())
    store.close()
    assert secret not in (tmp_path / "review.db").read_bytes()


def test_cancelled_put_is_undone_while_another_process_holds_the_lock(
    store: SqliteReviewStore, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "review.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.put([a_case("a")])
        other.execute("ROLLBACK")
        assert await store.put([a_case("b")]) == [STORED]
        assert await store.find("a") is None

    run(scene())
    other.close()


def test_error_of_the_database_reaches_the_caller_and_changes_nothing(
    store: SqliteReviewStore, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "review.db") as other:
        other.execute(
            "CREATE TRIGGER t BEFORE INSERT ON payloads WHEN NEW.id = 'b' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    other.close()
    with pytest.raises(Exception, match="no"):
        run(store.put([a_case("a"), a_case("b")]))
    assert run(store.list_cases(list(CaseState), 9)) == []
    assert run(store.put([a_case("a")])) == [STORED]


def test_file_is_made_with_its_folders_for_this_user_only_and_commits_reach_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "odd name?.db"
    store = open_file(path)
    run(store.put([a_case("a", 9e9)]))
    files = list(path.parent.iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert len(files) == 3
    path.chmod(0o644)
    open_file(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with store._engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("synchronous", "journal_mode", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 2000}
    store.close()


def damaged(path: Path) -> None:
    store = open_file(path, capacity=100)
    run(store.put([a_case(f"case {i}", 9e9, bytes(5000)) for i in range(50)]))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    path.write_bytes(content)


def another_programs(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE invoices (id)")
    other.close()


def newer(path: Path) -> None:
    open_file(path).close()
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
        open_file(tmp_path / "r.db")
    assert str(refused.value).startswith(f"{tmp_path}/r.db: ")


def test_folder_that_is_a_file_is_refused_at_open(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="give a folder"):
        open_file(tmp_path / "file" / "r.db")
