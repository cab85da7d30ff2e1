"""Quotas, identical rows and deleted payloads, over every review store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fallbacks.review.cases import CASE_BYTES, Case
from fallbacks.review.open_store import open_store
from fallbacks.review.quotas import MEMBER_BYTES, NO_LIMIT, UNLIMITED, Quotas, Share
from fallbacks.review.store import ReviewStore
from tests.fallbacks.review.test_store_contract import STORES, SharedStore, UrlOf
from tests.support.review_cases import (
    DECIDED,
    EXPIRED,
    FULL,
    OPEN,
    OVER_QUOTA,
    REJECTED,
    STORED,
    Clock,
    a_case,
)

T = TypeVar("T")


@pytest.fixture(params=STORES.values(), ids=list(STORES))
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedStore]:
    url_of: UrlOf = request.param
    shared = SharedStore(url_of(tmp_path))
    yield shared
    for handle in shared.handles:
        handle.close()


@pytest.fixture
def store(shared: SharedStore) -> ReviewStore:
    return shared.open(1000)


@pytest.fixture
def clock(shared: SharedStore) -> Clock:
    return shared.clock


def run(scene: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scene)


def row(name: str, payload: bytes = b"x", principal: str = "alice", **changes: Any) -> Case:
    """A row that joins the case of an identical one."""
    return a_case(name, payload=payload, principal=principal, **({"group": "abstained"} | changes))


async def waiting(store: ReviewStore) -> list[str]:
    return [record.id for record in await store.list_cases([OPEN], 10_000)]


async def answer_all(store: ReviewStore, answer: str = "1") -> None:
    for claim in await store.claim("rita", 60.0, 10_000):
        await store.resolve(claim.case.id, claim.fence, "rita", answer)


# ---------------------------------------------------------------- quotas


def test_a_caller_that_fills_its_share_takes_no_room_from_others(store: ReviewStore) -> None:
    async def scene() -> None:
        store.capacity, store.quotas = 5, Quotas(principal=Share(3, UNLIMITED))
        assert await store.put([a_case(name) for name in "abcd"]) == [STORED] * 3 + [OVER_QUOTA]
        assert await store.put([a_case("e", principal="bob"), a_case("f")]) == [STORED, OVER_QUOTA]
        assert await store.put([a_case("a")]) == [STORED], "what is stored stays so, however full the share"
        assert await store.put([a_case("g", principal="eve"), a_case("h", principal="eve")]) == [STORED, FULL]

    run(scene())


def test_a_share_is_free_again_when_cases_are_decided_or_expire(store: ReviewStore, clock: Clock) -> None:
    async def scene() -> None:
        store.quotas = Quotas(principal=Share(2, UNLIMITED))
        assert await store.put([a_case("a"), a_case("b", 1100.0)]) == [STORED] * 2
        (claim,) = await store.claim("rita", 60.0)
        assert claim.case.id == "b"
        assert await store.put([a_case("c")]) == [OVER_QUOTA], "a leased case counts"
        clock.now_s = 1100.0
        assert await store.put([a_case("c"), a_case("d")]) == [STORED, OVER_QUOTA], "before any sweep"
        await answer_all(store)
        assert await store.put([a_case(name) for name in "def"]) == [STORED, STORED, OVER_QUOTA]

    run(scene())


def test_callers_of_a_pool_share_its_quota_and_have_their_own_too(store: ReviewStore) -> None:
    async def scene() -> None:
        store.quotas = Quotas(principal=Share(2, UNLIMITED), pool=Share(5, UNLIMITED))
        for i in range(10):
            one, two, three = (
                a_case(f"{i}-{n}", principal=f"anonymous@{i}", pool="anonymous") for n in range(3)
            )
            last = [STORED, OVER_QUOTA][i > 1]
            expected = [STORED if i < 3 else OVER_QUOTA, last, OVER_QUOTA]
            assert await store.put([one, two, three]) == expected, i
        assert await store.put([a_case("k", principal="keyed")]) == [STORED]
        assert await store.put([a_case("p", principal="p", pool="another")]) == [STORED]

    run(scene())


def test_bytes_are_bounded_in_all_and_for_each_caller_and_pool(store: ReviewStore) -> None:
    async def scene() -> None:
        size = a_case("a").size_bytes
        assert size == CASE_BYTES + 1 + len('{"reason": "odd"}') + len('{"cat": 0.5}')
        store.quotas = Quotas(5 * size, Share(UNLIMITED, 2 * size), Share(UNLIMITED, 3 * size))
        assert await store.put([a_case(name) for name in "abc"]) == [STORED, STORED, OVER_QUOTA]
        pooled = [a_case(f"p{i}", principal=f"{i // 2}", pool="anonymous") for i in range(4)]
        assert await store.put(pooled) == [STORED, STORED, STORED, FULL]
        await answer_all(store)
        assert await store.put([a_case("large", payload=bytes(2 * size - CASE_BYTES))]) == [OVER_QUOTA]
        assert await store.put(pooled[3:]) == [STORED]

    run(scene())


def test_quotas_hold_over_all_handles_and_after_all_were_closed(shared: SharedStore) -> None:
    async def scene() -> None:
        handles = [shared.open(100), shared.open(100)]
        for handle in handles:
            handle.quotas = Quotas(principal=Share(7, UNLIMITED))
        puts = [handles[i % 2].put([a_case(f"{i}")]) for i in range(20)]
        results = [one for results in await asyncio.gather(*puts) for one in results]
        assert sorted(results) == sorted([STORED] * 7 + [OVER_QUOTA] * 13)
        for handle in handles:
            handle.close()
        third = shared.open(100)
        third.quotas = Quotas(principal=Share(8, UNLIMITED))
        assert await third.put([a_case("y"), a_case("z")]) == [STORED, OVER_QUOTA]

    run(scene())


# ---------------------------------------------------------------- identical rows


def test_identical_rows_of_a_caller_are_one_case_and_one_answer_answers_all(store: ReviewStore) -> None:
    async def scene() -> None:
        store.capacity = 1
        assert await store.put([row("a"), row("b")]) == [STORED] * 2
        assert await store.put([row("c")]) == [STORED]
        assert await waiting(store) == ["a"]
        (claim,) = await store.claim("rita", 60.0)
        assert await store.put([row("d")]) == [STORED], "a leased case may be joined too"
        await store.resolve("a", claim.fence, "rita", '"cat"')
        for name in "abcd":
            record = await store.find(name)
            assert record is not None
            assert (record.id, record.state, record.answer) == ("a", DECIDED, '"cat"')
        assert await store.put([row("e")]) == [STORED]
        assert await waiting(store) == ["e"], "what is answered is never joined: it would answer at once"

    run(scene())


@pytest.mark.parametrize(
    "other",
    [
        row("b", principal="bob"),
        row("b", payload=b"y"),
        row("b", group="unavailable"),
        row("b", group=""),
    ],
    ids=["another caller", "another row", "another question", "alone"],
)
def test_rows_that_differ_in_anything_are_two_cases(store: ReviewStore, other: Case) -> None:
    async def scene() -> None:
        assert await store.put([row("a"), other]) == [STORED] * 2
        assert await waiting(store) == ["a", "b"]

    run(scene())


def test_a_row_joins_no_case_that_ends_before_half_of_its_own_time(store: ReviewStore, clock: Clock) -> None:
    async def scene() -> None:
        await store.put([row("a", expires_s=2000.0)])
        clock.now_s = 1500.0
        assert await store.put([row("b", expires_s=2500.0)]) == [STORED]
        clock.now_s = 1501.0
        assert await store.put([row("c", expires_s=2501.0)]) == [STORED]
        assert await store.put([row("d", expires_s=2501.0)]) == [STORED]
        assert await waiting(store) == ["a", "c"]
        clock.now_s = 2000.0
        found = await store.find_all("abcd")
        assert {name: record.state for name, record in found.items()} == {
            "a": EXPIRED,
            "b": EXPIRED,
            "c": OPEN,
            "d": OPEN,
        }

    run(scene())


def test_only_so_many_rows_join_one_case_and_each_takes_few_bytes(store: ReviewStore) -> None:
    async def scene() -> None:
        size = row("case").size_bytes
        store.quotas = Quotas(principal=Share(UNLIMITED, 2 * size + 1000 * MEMBER_BYTES))
        assert set(await store.put([row(f"{i:04}") for i in range(1001)])) == {STORED}
        assert await waiting(store) == ["0000"]
        assert await store.put([row("next")]) == [STORED]
        assert await waiting(store) == ["0000", "next"]
        assert await store.put([row("more")]) == [OVER_QUOTA]
        await answer_all(store)
        assert await store.put([row("more")]) == [STORED]

    run(scene())


def test_a_joined_row_is_put_again_without_effect_and_its_id_is_taken(store: ReviewStore) -> None:
    async def scene() -> None:
        assert await store.put([row("a"), row("b"), row("b")]) == [STORED] * 3
        assert await store.put([row("b", payload=b"y"), row("b", principal="eve")]) == [REJECTED] * 2
        store.quotas = Quotas(principal=Share(0, 0))
        assert await store.put([row("b")]) == [STORED]
        assert await waiting(store) == ["a"]

    run(scene())


def test_joined_rows_are_purged_with_their_case(store: ReviewStore, clock: Clock) -> None:
    async def scene() -> None:
        await store.put([row(f"{i}") for i in range(700)])
        await store.put([row("other", payload=b"y")])
        await answer_all(store)
        clock.now_s = 1200.0
        assert await store.purge(1100.0) == 2
        assert await store.find_all(["0", "1", "699", "other"]) == {}

    run(scene())


def test_joined_rows_are_looked_up_together_with_cases(store: ReviewStore) -> None:
    async def scene() -> None:
        await store.put([row("a"), row("b"), row("c", payload=b"y")])
        found = await store.find_all(["a", "b", "c", "unknown", 'o"dd'])
        assert {name: record.id for name, record in found.items()} == {"a": "a", "b": "a", "c": "c"}
        assert await store.find_all([]) == {}

    run(scene())


# ---------------------------------------------------------------- what is kept of a final case


def test_the_payload_goes_when_its_case_is_decided_or_expires_and_the_answer_stays(
    store: ReviewStore, clock: Clock
) -> None:
    async def scene() -> None:
        await store.put([a_case("a", payload=b"first"), a_case("b", 1100.0), a_case("c")])
        (claim, _) = await store.claim("rita", 60.0, 2)
        assert claim.case.id == "b"
        clock.now_s = 1100.0
        assert await store.expire(clock.now_s) == 1
        await answer_all(store)
        assert [await store.payload(name) for name in "abc"] == [None] * 3
        found = await store.find_all("abc")
        assert [found[name].answer for name in "abc"] == ["1", None, "1"]

    run(scene())


def test_expired_cases_may_be_deleted_sooner_than_decided_ones(store: ReviewStore, clock: Clock) -> None:
    async def scene() -> None:
        await store.put([a_case("a"), a_case("b", 1100.0), a_case("c", 1200.0)])
        (claim,) = await store.claim("rita", 60.0)
        await store.resolve(claim.case.id, claim.fence, "rita", "1")
        clock.now_s = 1300.0
        assert await store.purge(900.0, 1150.0) == 0, "b was decided in time"
        assert await store.purge(900.0, 1250.0) == 1
        assert sorted(await store.find_all("abc")) == ["a", "b"]

    run(scene())


def test_what_was_decided_lately_is_found_by_time(store: ReviewStore, clock: Clock) -> None:
    async def scene() -> None:
        await store.put([row("a"), row("b"), row("c", payload=b"y")])
        (claim,) = await store.claim("rita", 600.0)
        await store.resolve(claim.case.id, claim.fence, "rita", "1")
        assert await store.decided_within(1.0) == ["a"]
        clock.now_s += 5.0
        assert await store.decided_within(1.0) == []
        assert await store.decided_within(6.0) == ["a"]

    run(scene())


def test_by_default_nothing_but_the_capacity_bounds_a_store(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/r.db", tmp_path, capacity=2)
    assert store.quotas == Quotas(UNLIMITED, NO_LIMIT, NO_LIMIT)
    store.close()
