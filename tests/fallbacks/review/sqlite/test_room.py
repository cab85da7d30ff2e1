"""The room that the SQLite review store takes: old files, freed pages, and the cost of keeping count."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.sqlite import dialect

from fallbacks.review.cases import CASE_BYTES
from fallbacks.review.quotas import UNLIMITED, Quotas, Share
from fallbacks.review.sqlite import insertion, statements
from fallbacks.review.sqlite import reclaim as sqlite_reclaim
from fallbacks.review.sqlite.store import SqliteReviewStore
from fallbacks.review.store import StoreError
from tests.fallbacks.review.sqlite.test_group_commit import V1, driver_of
from tests.support.review_cases import DECIDED, EXPIRED, OPEN, OVER_QUOTA, REJECTED, STORED, Clock, a_case

T = TypeVar("T")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteReviewStore]:
    one = SqliteReviewStore.open(tmp_path / "review.db", capacity=10**6, clock=Clock())
    yield one
    one.close()


def run(scene: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scene)


def usage(path: Path) -> dict[str, tuple[int, int]]:
    with sqlite3.connect(path) as other:
        rows = other.execute("SELECT account, cases, bytes FROM case_usage").fetchall()
    other.close()
    return {account: (cases, size) for account, cases, size in rows}


STATEMENTS: dict[str, str | ClauseElement] = {
    "place": insertion.PLACE,
    "expire": statements.EXPIRE_SQL,
    "find": statements._FIND,
    "decided": statements._DECIDED_SINCE,
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_on_the_path_of_a_request_finds_its_rows_by_an_index(
    store: SqliteReviewStore, name: str
) -> None:
    sql, names = STATEMENTS[name], "id principal digest payload pool now_s expires_s limit most_bytes since_s"
    values: dict[str, Any] = {**dict.fromkeys(names.split(), 0), "ids": "[1]"}
    if not isinstance(sql, str):
        compiled = sql.compile(dialect=dialect(paramstyle="named"))
        sql, values = str(compiled), {**compiled.params, **values}
    plan = driver_of(store._engine).execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    steps = [detail for *_, detail in plan]
    scans = [one for one in steps if one.startswith("SCAN") and "VIRTUAL TABLE" not in one]
    inner = [one for one in scans if not one.startswith(("SCAN (subquery", "SCAN CONSTANT"))]
    assert inner == [], steps
    assert any("USING" in one for one in steps), steps


def test_a_put_costs_no_more_because_its_caller_has_many_cases_and_rows_that_joined(tmp_path: Path) -> None:
    async def filled(n: int) -> list[int]:
        store = SqliteReviewStore.open(tmp_path / f"{n}.db", capacity=10**6, clock=Clock())
        store.quotas = Quotas(10**9, Share(10**6, 10**9), Share(10**6, 10**9))
        rows = [a_case(f"{i}", payload=b"%d" % i, pool="p", group="g") for i in range(n)]
        await store.put(rows)
        await store.put([a_case(f"same{i}", payload=b"0", pool="p", group="g") for i in range(n)])
        for who in range(n):
            await store.put([a_case(f"of{who}", payload=b"0", principal=f"{who}", group="g")])
        for age in range(n // 10):  # each too old for the next one to join
            store._clock.now_s = 1000.0 + 1000.0 * age  # type: ignore[attr-defined]
            case = a_case(f"old{age}", 2000.0 + 1100.0 * age, payload=b"old", group="g")
            assert await store.put([case]) == [STORED]
        store._clock.now_s = 1000.0  # type: ignore[attr-defined]
        ticks: list[None] = []
        driver_of(store._engine).set_progress_handler(lambda: ticks.append(None), 1)
        taken = []
        for case in (
            a_case("new", payload=b"new", pool="p", group="g"),
            a_case("joins", payload=b"0", pool="p", group="g"),
            a_case("joins the latest", payload=b"old", group="g"),
        ):
            ticks.clear()
            assert await store.put([case]) == [STORED]
            taken.append(len(ticks))
        store.quotas = Quotas(principal=Share(1, 1))
        ticks.clear()
        assert await store.put([a_case("refused", payload=b"other", pool="p", group="g")]) == [OVER_QUOTA]
        store.close()
        return [*taken, len(ticks)]

    for few, many in zip(run(filled(20)), run(filled(800)), strict=True):
        assert many < 1.5 * few, (few, many)


def test_counts_are_exact_through_the_life_of_cases_and_empty_accounts_are_removed(
    store: SqliteReviewStore, tmp_path: Path
) -> None:
    async def scene() -> None:
        path = tmp_path / "review.db"
        pooled = {"principal": "anonymous@1", "pool": "anonymous"}
        size = a_case("a").size_bytes
        await store.put([a_case("a"), a_case("b", 1100.0), a_case("c", **pooled)])  # type: ignore[arg-type]
        assert usage(path) == {
            "all": (3, 3 * size),
            "principal/alice": (2, 2 * size),
            "principal/anonymous@1": (1, size),
            "pool/anonymous": (1, size),
        }
        store._clock.now_s = 1100.0  # type: ignore[attr-defined]
        await store.expire(1100.0)
        for claim in await store.claim("rita", 60.0, 9):
            if claim.case.id == "c":
                await store.resolve("c", claim.fence, "rita", "1")
            else:
                await store.release(claim.case.id, claim.fence)
        assert usage(path) == {"all": (1, size), "principal/alice": (1, size)}
        store._clock.now_s = 5000.0  # type: ignore[attr-defined]
        await store.purge(4000.0)  # deletes one that nothing had marked as expired
        assert usage(path) == {}

    run(scene())


def test_wrong_usage_is_corrected_when_the_store_is_opened(store: SqliteReviewStore, tmp_path: Path) -> None:
    run(store.put([a_case("a"), a_case("b", pool="p")]))
    before = usage(tmp_path / "review.db")
    with sqlite3.connect(tmp_path / "review.db") as other:
        other.execute("UPDATE case_usage SET cases = 77, bytes = 1")
        other.execute("INSERT INTO case_usage VALUES ('principal/other', 5, 5)")
    other.close()
    SqliteReviewStore.open(tmp_path / "review.db", capacity=9, clock=Clock()).close()
    assert usage(tmp_path / "review.db") == before


def test_a_file_of_an_older_release_is_counted_and_loses_the_payloads_of_final_cases(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with sqlite3.connect(path) as older:
        older.executescript(V1)
        for name, state in [("a", "open"), ("b", "leased"), *((f"c{i}", "expired") for i in range(30))]:
            older.execute(
                "INSERT INTO cases (id, principal, created_s, expires_s, why, model_view, state, fence) "
                "VALUES (?, 'alice', 1000, 2000, '{}', '[]', ?, 0)",
                (name, state),
            )
            older.execute("INSERT INTO payloads VALUES (?, ?)", (name, b"face" * 1000))
    older.close()
    store = SqliteReviewStore.open(path, capacity=10, clock=Clock())

    async def scene() -> None:
        assert (await store.counts()).by_state[EXPIRED] == 30
        assert [await store.payload(name) for name in ("a", "b", "c0", "c29")] == [
            b"face" * 1000,
            b"face" * 1000,
            None,
            None,
        ]
        size = CASE_BYTES + 4000 + 4
        assert usage(path) == {"all": (2, 2 * size), "principal/alice": (2, 2 * size)}
        same = a_case("a", payload=b"face" * 1000)
        assert await store.put([same, a_case("b"), a_case("b", principal="eve")]) == [
            STORED,
            REJECTED,
            REJECTED,
        ]
        store.quotas = Quotas(principal=Share(3, UNLIMITED))
        assert await store.put([a_case("n"), a_case("o")]) == [STORED, OVER_QUOTA]

    run(scene())
    store.close()
    SqliteReviewStore.open(path, capacity=10, clock=Clock()).close()


def test_an_old_payload_that_cannot_be_deleted_refuses_the_file_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with sqlite3.connect(path) as older:
        older.executescript(V1)
        older.execute(
            "INSERT INTO cases (id, principal, created_s, expires_s, why, model_view, state, fence) "
            "VALUES ('a', 'alice', 1000, 2000, '{}', '[]', 'expired', 0)"
        )
        older.execute("INSERT INTO payloads VALUES ('a', 'x')")
        older.execute("CREATE TRIGGER t BEFORE DELETE ON payloads BEGIN SELECT RAISE(ABORT, 'no'); END")
    older.close()
    with pytest.raises(StoreError, match=r"r\.db: no; try again"):
        SqliteReviewStore.open(path, capacity=10, clock=Clock())


def test_a_release_that_knows_no_quotas_may_go_on_beside_this_one(
    store: SqliteReviewStore, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "review.db") as older:
        older.execute(
            "INSERT INTO cases (id, principal, created_s, expires_s, why, model_view, state, fence) "
            "VALUES ('a', 'alice', 1000, 2000, '{}', '[]', 'open', 0)"
        )
        older.execute("INSERT INTO payloads VALUES ('a', 'x')")
    store.quotas = Quotas(principal=Share(2, UNLIMITED))
    assert run(store.put([a_case("b"), a_case("c")])) == [STORED, OVER_QUOTA]
    with older:
        older.execute("UPDATE cases SET state = 'decided', answer = '1', decided_s = 1000 WHERE id = 'a'")
        assert older.execute("SELECT id FROM payloads").fetchall() == [("b",)]
    older.close()
    assert run(store.counts()).by_state[DECIDED] == 1
    assert run(store.put([a_case("c")])) == [STORED]


def test_a_file_gives_back_the_room_of_what_has_ended(
    store: SqliteReviewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_reclaim, "FREE_PAGES_KEPT", 10)
    monkeypatch.setattr(sqlite_reclaim, "PAGES_AT_ONCE", 100)

    async def scene() -> None:
        await store.put([a_case(f"{i}", 1100.0, bytes(2**20)) for i in range(8)])
        store._clock.now_s = 1200.0  # type: ignore[attr-defined]
        assert await store.expire(1200.0) == 8
        await store.purge(0.0)
        assert (await store.counts()).by_state == {OPEN: 0, "leased": 0, DECIDED: 0, EXPIRED: 8}

    run(scene())
    store.close()
    assert (tmp_path / "review.db").stat().st_size < 2**20


def test_one_transaction_expires_only_so_many_bytes(
    store: SqliteReviewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "EXPIRE_BYTES", 3 * 10**5)

    async def scene() -> None:
        await store.put([a_case(f"{i}", 1100.0, bytes(10**5)) for i in range(10)])
        commits: list[str] = []
        driver_of(store._engine).set_trace_callback(
            lambda text: commits.append(text) if text == "COMMIT" else None
        )
        store._clock.now_s = 1100.0  # type: ignore[attr-defined]
        assert await store.expire(1100.0) == 10
        assert len(commits) == 5, "four with cases, one without"

    run(scene())
