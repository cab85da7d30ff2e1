"""The contract of `ReviewStore`, one guarantee a test, over every store that there is."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from fallbacks.oip.payload import decode, encode
from fallbacks.review.cases import MAX_PAYLOAD_BYTES, Case, CaseCounts, CaseState, Claim
from fallbacks.review.open_store import open_store
from fallbacks.review.quotas import MEMBER_BYTES, PutResult, Quotas, Share
from fallbacks.review.store import ReviewStore, StaleLease
from tests.support.review_cases import (
    DECIDED,
    EXPIRED,
    FULL,
    LEASED,
    OPEN,
    OVER_QUOTA,
    REJECTED,
    STORED,
    Clock,
    a_case,
)
from tests.support.review_history import TwoReplicas

T = TypeVar("T")
UrlOf = Callable[[Path], str]

STORES: Final[dict[str, UrlOf]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/review.db",
}
"""Every store: the URL of an empty one, given a folder that is empty too. A new store is one more line."""


@dataclass
class SharedStore:
    """One store that a test opens as often as it likes, as replicas do."""

    url: str
    clock: Clock = field(default_factory=Clock)
    handles: list[ReviewStore] = field(default_factory=list)

    def open(self, capacity: int = 3) -> ReviewStore:
        self.handles.append(open_store(self.url, Path(), capacity=capacity, clock=self.clock))
        return self.handles[-1]


@pytest.fixture(params=STORES.values(), ids=list(STORES))
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedStore]:
    shared = SharedStore(request.param(tmp_path))
    yield shared
    for handle in shared.handles:
        handle.close()


@pytest.fixture
def store(shared: SharedStore) -> ReviewStore:
    return shared.open()


@pytest.fixture
def clock(shared: SharedStore) -> Clock:
    return shared.clock


def run(scene: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scene)


def counts(store: ReviewStore) -> dict[str, int]:
    return {state: n for state, n in run(store.counts()).by_state.items() if n}


def test_example_of_the_protocol_runs(shared: SharedStore) -> None:
    documentation = inspect.getdoc(ReviewStore) or ""
    example = textwrap.dedent(documentation.partition("against every store::\n")[2])
    assert example.count("await") == 4
    body = textwrap.indent(example, "    ")
    scope: dict[str, Any] = {
        "Case": Case,
        "CaseState": CaseState,
        "PutResult": PutResult,
        "decode": decode,
        "encode": encode,
        "folder": Path(),
        "np": np,
        "open_store": open_store,
        "time": time,
        "url": shared.url,
    }
    exec(f"async def example():\n{body}\n    return shown", scope)
    shown = run(scope["example"]())
    assert shown["x"].tolist() == [[0, 0, 0, 0]]


def test_put_then_claim_then_resolve_leaves_the_answer_for_the_caller(
    store: ReviewStore, clock: Clock
) -> None:
    async def scene() -> None:
        assert await store.put([a_case("a", payload=b"picture")]) == [STORED]
        (claim,) = await store.claim("rita", 600.0)
        assert claim == Claim(a_case("a", payload=b"picture"), fence=claim.fence, until_s=1600.0)
        clock.now_s += 30
        await store.resolve("a", claim.fence, "rita", '"cat"')
        record = await store.find("a")
        assert record is not None
        assert (record.state, record.answer, record.reviewer) == (DECIDED, '"cat"', "rita")
        assert (record.principal, record.decided_s, record.why) == ("alice", 1030.0, '{"reason": "odd"}')
        assert await store.payload("a") is None, "what is decided needs no payload any more"
        assert await store.find("b") is None
        assert await store.payload("b") is None

    run(scene())


def test_another_handle_sees_a_case_at_once_and_after_both_are_closed(shared: SharedStore) -> None:
    async def scene() -> None:
        first, second = shared.open(), shared.open()
        await first.put([a_case("a", payload=b"picture"), a_case("b")])
        (claim,) = await second.claim("rita", 600.0)
        await first.resolve("a", claim.fence, "rita", "1")
        records = await second.list_cases(list(CaseState), 9)
        first.close()
        second.close()
        third = shared.open()
        assert await third.list_cases(list(CaseState), 9) == records
        assert [record.state for record in records] == [OPEN, DECIDED]
        assert [await third.payload(name) for name in "ab"] == [None, b"x"]

    run(scene())


def test_put_takes_in_order_up_to_capacity_and_again_when_one_is_decided_or_overdue(
    store: ReviewStore, clock: Clock
) -> None:
    async def scene() -> None:
        assert await store.put([a_case("a", 1500.0), *map(a_case, "bcd")]) == [STORED, STORED, STORED, FULL]
        (claim,) = await store.claim("rita", 60.0)
        assert await store.put([a_case("d")]) == [FULL], "a leased case still takes its room"
        await store.resolve(claim.case.id, claim.fence, "rita", "1")
        assert await store.put([a_case("d", 1100.0)]) == [STORED]
        clock.now_s = 1100.0
        assert await store.put([a_case("e")]) == [STORED], "an overdue case takes none, before any sweep"

    run(scene())


def test_capacity_may_be_changed_while_the_store_is_open(store: ReviewStore) -> None:
    async def scene() -> None:
        store.capacity = 1
        assert await store.put([a_case("a"), a_case("b")]) == [STORED, FULL]
        store.capacity = 2
        assert await store.put([a_case("b"), a_case("c")]) == [STORED, FULL]

    run(scene())


def test_put_again_is_true_even_when_full_but_never_for_another_case_under_the_same_id(
    store: ReviewStore,
) -> None:
    async def scene() -> None:
        cases = [a_case(name) for name in "abc"]
        assert await store.put(cases) == [STORED] * 3
        (claim,) = await store.claim("rita", 60.0)
        assert await store.put(cases) == [STORED] * 3
        assert await store.put([a_case("a", principal="mallory"), a_case("b", payload=b"y")]) == [
            REJECTED,
            REJECTED,
        ]
        await store.resolve(claim.case.id, claim.fence, "rita", "1")
        assert await store.put([a_case("d"), a_case("d")]) == [STORED, STORED]
        assert await store.put(cases) == [STORED] * 3, "and nothing is opened again"

    run(scene())
    assert counts(store) == {OPEN: 3, DECIDED: 1}


def test_withdrawn_rows_are_as_if_never_put_and_what_others_wait_for_stays(
    store: ReviewStore, clock: Clock
) -> None:
    async def scene() -> None:
        store.capacity = 9
        same = [a_case(name, group="g") for name in "abc"]  # one case that two more rows have joined
        rest = [a_case("d"), a_case("e", 1900.0), a_case("f", 1800.0), a_case("g", 1100.0)]
        assert await store.put([*same, *rest]) == [STORED] * 7
        clock.now_s = 1100.0
        for claim in await store.claim("rita", 60.0, 2):
            if claim.case.id == "f":
                await store.resolve("f", claim.fence, "rita", "1")
        ids = ["a", "b", "d", "e", "f", "g", "unknown"]
        assert await store.withdraw(ids) == 2, "b, which has joined a, and d"
        assert await store.withdraw(ids) == 0
        states = {id_: one.state for id_, one in (await store.find_all([*ids, "c"])).items()}
        assert states == {"a": OPEN, "c": OPEN, "e": LEASED, "f": DECIDED, "g": EXPIRED}
        assert await store.payload("d") is None
        assert await store.withdraw(["c"]) == 1
        assert await store.withdraw(["a"]) == 1, "no other row waits for it any more"
        assert await store.put([a_case("d", payload=b"other")]) == [STORED]

    run(scene())


def test_withdrawn_rows_give_back_the_room_that_they_took(shared: SharedStore) -> None:
    async def scene() -> None:
        store = shared.open(capacity=2)
        rows = [a_case(name, group="g") for name in "abc"]
        store.quotas = Quotas(principal=Share(1, rows[0].size_bytes + MEMBER_BYTES))
        for _ in range(3):
            assert await store.put(rows) == [STORED, STORED, OVER_QUOTA]
            assert await store.withdraw(["b"]) == 1
            assert await store.withdraw(["a"]) == 1
        assert (await store.counts()).by_state[OPEN] == 0

    run(scene())


def test_put_of_nothing_or_of_the_overdue_takes_nothing(store: ReviewStore) -> None:
    assert run(store.put([])) == []
    assert run(store.put([a_case("a", expires_s=1000.0)])) == [REJECTED]
    assert counts(store) == {}


def test_largest_payload_is_stored_and_a_larger_one_is_no_case(store: ReviewStore) -> None:
    largest = bytes(MAX_PAYLOAD_BYTES)
    assert run(store.put([a_case("a", payload=largest)])) == [STORED]
    assert run(store.payload("a")) == largest
    with pytest.raises(ValueError, match=f"case b: {MAX_PAYLOAD_BYTES + 1} bytes, over {MAX_PAYLOAD_BYTES}"):
        a_case("b", payload=largest + b"x")


@pytest.mark.parametrize("bad_s", [float("nan"), float("inf")])
def test_times_that_are_not_finite_or_not_positive_are_refused(store: ReviewStore, bad_s: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        a_case("a", expires_s=bad_s)
    assert run(store.put([a_case("a")])) == [STORED]
    for lease_s in (bad_s, 0.0, -1.0):
        with pytest.raises(ValueError, match="positive"):
            run(store.claim("rita", lease_s))
    (claim,) = run(store.claim("rita", 60.0))
    for lease_s in (bad_s, 0.0, -1.0):
        with pytest.raises(ValueError, match="positive"):
            run(store.renew("a", claim.fence, lease_s))


def test_claim_leases_what_expires_first_and_nothing_twice(store: ReviewStore) -> None:
    async def scene() -> None:
        oldest = a_case("later", 1950.0, created_s=500.0)
        await store.put([a_case("late", 1900.0), a_case("soon", 1200.0), oldest])
        assert [record.id for record in await store.list_cases([OPEN], 9)] == ["soon", "late", "later"]
        assert [claim.case.id for claim in await store.claim("rita", 60.0, limit=2)] == ["soon", "late"]
        assert [claim.case.id for claim in await store.claim("ravi", 60.0, limit=2)] == ["later"]
        assert await store.claim("rosa", 60.0) == []

    run(scene())


def test_cases_that_expire_together_are_claimed_and_listed_by_age_then_id(store: ReviewStore) -> None:
    async def scene() -> None:
        await store.put([a_case("b"), a_case("a"), a_case("c", created_s=900.0)])
        assert [record.id for record in await store.list_cases([OPEN], 9)] == ["c", "a", "b"]
        assert [claim.case.id for claim in await store.claim("rita", 60.0, limit=3)] == ["c", "a", "b"]

    run(scene())


def test_claims_of_two_handles_at_once_lease_every_case_once(shared: SharedStore) -> None:
    async def scene() -> None:
        handles = [shared.open(40), shared.open(40)]
        await handles[0].put([a_case(f"{i}") for i in range(30)])
        calls = [handle.claim(f"{i}", 60.0, 2) for i in range(10) for handle in handles]
        claims = [claim for claims in await asyncio.gather(*calls) for claim in claims]
        assert sorted(claim.case.id for claim in claims) == sorted(f"{i}" for i in range(30))
        assert len({claim.fence for claim in claims}) == 30, "each lease has a fence of its own"

    run(scene())


def test_lease_that_ends_passes_the_case_on_and_rejects_the_late_reviewer(
    store: ReviewStore, clock: Clock
) -> None:
    async def scene() -> None:
        await store.put([a_case("a")])
        (first,) = await store.claim("rita", 60.0)
        clock.now_s += 60.0
        with pytest.raises(StaleLease):
            await store.resolve("a", first.fence, "rita", "1")
        (second,) = await store.claim("ravi", 60.0)
        assert second.fence != first.fence
        for late in (
            store.resolve("a", first.fence, "rita", "1"),
            store.renew("a", first.fence, 60.0),
            store.release("a", first.fence),
            store.resolve("a", second.fence, "rita", "1"),
            store.resolve("a", second.fence + 1, "ravi", "1"),
        ):
            with pytest.raises(StaleLease):
                await late
        await store.resolve("a", second.fence, "ravi", "2")
        with pytest.raises(StaleLease):
            await store.resolve("a", second.fence, "ravi", "3")
        record = await store.find("a")
        assert record is not None and record.answer == "2"

    run(scene())


def test_no_lease_runs_on_a_case_that_is_open_or_does_not_exist(store: ReviewStore) -> None:
    async def scene() -> None:
        await store.put([a_case("open")])
        for id_, fence in itertools.product(("open", "unknown"), (0, 1)):
            for call in (
                store.resolve(id_, fence, "rita", "1"),
                store.renew(id_, fence, 60.0),
                store.release(id_, fence),
            ):
                with pytest.raises(StaleLease):
                    await call

    run(scene())
    assert counts(store) == {OPEN: 1}


def test_renewed_lease_lasts_longer_but_not_past_the_expiry(store: ReviewStore, clock: Clock) -> None:
    async def scene() -> None:
        await store.put([a_case("a", expires_s=1150.0)])
        (claim,) = await store.claim("rita", 60.0)
        clock.now_s += 50.0
        await store.renew("a", claim.fence, 600.0)
        clock.now_s += 90.0
        assert await store.claim("ravi", 60.0) == []
        clock.now_s += 10.0
        with pytest.raises(StaleLease):
            await store.resolve("a", claim.fence, "rita", "1")

    run(scene())
    assert counts(store) == {EXPIRED: 1}


def test_released_case_is_open_at_once_and_its_next_claim_has_another_fence(store: ReviewStore) -> None:
    async def scene() -> None:
        await store.put([a_case("a")])
        (claim,) = await store.claim("rita", 60.0)
        await store.release("a", claim.fence)
        with pytest.raises(StaleLease):
            await store.resolve("a", claim.fence, "rita", "1")
        (again,) = await store.claim("rita", 60.0)
        assert again.fence != claim.fence

    run(scene())


def test_fences_are_spread_over_all_numbers_that_every_client_of_json_can_hold(store: ReviewStore) -> None:
    async def scene() -> None:
        store.capacity = 200
        assert await store.put([a_case(f"{i}") for i in range(200)]) == [STORED] * 200
        fences = sorted(claim.fence for claim in await store.claim("rita", 60.0, limit=200))
        assert fences[0] >= 1 and fences[-1] < 2**53
        assert fences[0] < 2**52 < fences[-1]
        assert min(later - fence for fence, later in itertools.pairwise(fences)) > 1
        for fence in (fences[0] - 1, fences[0] + 1, 1, 2):
            with pytest.raises(StaleLease):
                await store.resolve("0", fence, "rita", "1")

    run(scene())


def test_every_read_reports_expired_cases_before_any_sweep(store: ReviewStore, clock: Clock) -> None:
    async def scene() -> None:
        await store.put([a_case("a", 1100.0), a_case("b", 1200.0), a_case("c", 1300.0)])
        await store.claim("rita", 500.0, limit=2)
        assert await store.counts() == CaseCounts({OPEN: 1, LEASED: 2, DECIDED: 0, EXPIRED: 0}, 0.0)
        clock.now_s = 1250.0
        assert await store.counts() == CaseCounts({OPEN: 1, LEASED: 0, DECIDED: 0, EXPIRED: 2}, 250.0)
        found = await store.find("a")
        assert found is not None and found.state is EXPIRED
        assert [r.id for r in await store.list_cases([EXPIRED], 9)] == ["b", "a"]
        assert [r.id for r in await store.list_cases([LEASED, OPEN], 9)] == ["c"]
        assert await store.expire(clock.now_s) == 2
        assert await store.expire(clock.now_s) == 0
        clock.now_s = 1300.0
        assert (await store.counts()).oldest_waiting_s is None

    run(scene())


def test_list_begins_with_what_expires_first_and_ends_with_what_was_final_first(
    store: ReviewStore, clock: Clock
) -> None:
    async def scene() -> None:
        await store.put([a_case("a", 1100.0), a_case("b", 1200.0), a_case("c", 1900.0)])
        for claim in await store.claim("rita", 50.0, limit=2):
            clock.now_s += 1.0
            await store.resolve(claim.case.id, claim.fence, "rita", "1")
        await store.put([a_case("d", 1800.0)])
        assert [r.id for r in await store.list_cases(list(CaseState), 9)] == ["d", "c", "b", "a"]
        assert [r.id for r in await store.list_cases(list(CaseState), 3)] == ["d", "c", "b"]
        assert await store.list_cases([], 9) == []

    run(scene())


def test_purge_deletes_final_cases_and_their_payloads_alone(store: ReviewStore, clock: Clock) -> None:
    async def scene() -> None:
        await store.put([a_case("a", 1100.0), a_case("b", 5000.0), a_case("c", 5000.0)])
        for claim in await store.claim("rita", 60.0, limit=2):
            if claim.case.id == "b":
                await store.resolve("b", claim.fence, "rita", "1")
        clock.now_s = 1200.0
        assert await store.purge(1000.0) == 0
        assert await store.purge(9999.0) == 2
        assert [await store.payload(name) for name in "abc"] == [None, None, b"x"]

    run(scene())
    assert counts(store) == {OPEN: 1}


def test_sweeps_of_many_cases_change_all_of_them(shared: SharedStore, clock: Clock) -> None:
    async def scene() -> None:
        store = shared.open(2000)
        await store.put([a_case(f"{i}", 1001.0) for i in range(1001)])
        clock.now_s = 1002.0
        assert await store.expire(clock.now_s) == 1001
        assert await store.purge(1002.0) == 1001
        assert await store.list_cases(list(CaseState), 9) == []

    run(scene())


def test_concurrent_puts_fill_the_store_exactly_and_each_learns_of_its_own_cases(
    shared: SharedStore,
) -> None:
    async def scene() -> None:
        handles = [shared.open(31), shared.open(31)]
        puts = [[a_case(f"{i}-{j}") for j in range(3)] for i in range(20)]
        results = await asyncio.gather(*(handles[i % 2].put(cases) for i, cases in enumerate(puts)))
        pairs = [
            (case.id, result)
            for put, its in zip(puts, results, strict=True)
            for case, result in zip(put, its, strict=True)
        ]
        stored_ids = sorted(id_ for id_, result in pairs if result is STORED)
        assert len(stored_ids) == 31
        assert sorted(r.id for r in await handles[0].list_cases([OPEN], 99)) == stored_ids

    run(scene())


def test_cancelled_put_stores_all_of_its_cases_or_none(shared: SharedStore) -> None:
    async def scene() -> None:
        store = shared.open(1000)
        for i, pauses in enumerate([*range(6), 0, 0, 1, 2]):
            put = asyncio.create_task(store.put([a_case(f"{i}a"), a_case(f"{i}b")]))
            for _ in range(pauses):
                await asyncio.sleep(0.0002)
            put.cancel()
            await asyncio.gather(put, return_exceptions=True)
            assert await store.put([a_case(f"after{i}")]) == [STORED]
            ids = {record.id for record in await store.list_cases([OPEN], 1000)}
            assert len(ids & {f"{i}a", f"{i}b"}) in (0, 2)

    run(scene())


def test_put_that_is_cancelled_before_it_begins_stores_nothing(store: ReviewStore) -> None:
    async def scene() -> None:
        put = asyncio.create_task(store.put([a_case("a")]))
        put.cancel()
        await asyncio.gather(put, return_exceptions=True)
        assert await store.put([a_case("b")]) == [STORED]
        assert await store.find("a") is None

    run(scene())


def test_closed_store_refuses_every_call_and_stores_nothing(shared: SharedStore) -> None:
    store = shared.open()
    store.close()
    store.close()
    for call in (
        store.counts(),
        store.put([a_case("late")]),
        store.claim("rita", 60.0),
        store.find("late"),
        store.list_cases([OPEN], 9),
        store.expire(1000.0),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            run(call)
    assert counts(shared.open()) == {}


@pytest.mark.parametrize("url_of", STORES.values(), ids=list(STORES))
def test_any_history_of_two_replicas_agrees_with_a_model_in_memory(url_of: UrlOf) -> None:
    class Replicas(TwoReplicas):
        def __init__(self) -> None:
            super().__init__(url_of)

    run_state_machine_as_test(Replicas, settings=settings(max_examples=12, stateful_step_count=30))


CHILD = """
import asyncio, sys, time
from pathlib import Path
from fallbacks.review.cases import Case
from fallbacks.review.open_store import open_store
from fallbacks.review.quotas import PutResult
url, name, capacity, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
async def main():
    store = open_store(url, Path(), capacity=capacity)
    print("ready", flush=True)
    for i in range(count):
        cases = [Case(f"{name}-{i}-{j}", "p", time.time(), 9e9, bytes(3000), "{}", "{}") for j in range(2)]
        for case, result in zip(cases, await store.put(cases)):
            if result is PutResult.STORED:
                print(case.id, flush=True)
    store.close()
asyncio.run(main())
"""


def child(url: str, name: str, capacity: int, count: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, url, name, str(capacity), str(count)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_every_acknowledged_case_survives_kill_9(shared: SharedStore) -> None:
    with child(shared.url, "c", 10**6, 10**6) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(60)][1:]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split("\n")[:-1]
    assert process.returncode == -signal.SIGKILL
    store = shared.open(10**6)
    found = {record.id for record in run(store.list_cases([OPEN], 10**6))}
    assert set(acknowledged) <= found
    assert len(found) % 2 == 0, "a put is there as a whole or not at all"
    assert run(store.put([a_case("after", 9e9)])) == [STORED]


def test_processes_that_open_and_put_at_once_never_exceed_the_capacity(shared: SharedStore) -> None:
    children = [child(shared.url, name, 31, 20) for name in "ab"]
    stored = [process.communicate(timeout=30)[0].split()[1:] for process in children]
    assert [process.returncode for process in children] == [0, 0]
    found = [record.id for record in run(shared.open().list_cases([OPEN], 100))]
    assert sorted(found) == sorted(stored[0] + stored[1])
    assert len(found) == 31
