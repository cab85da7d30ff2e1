"""Requests that wait for reviewers' answers (`Prefer: wait=N`): what they get and cost, and how many may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fallbacks.review.cases import CaseRecord
from fallbacks.review.open_store import open_store
from gateway.access.callers import Caller
from gateway.access.waiting import (
    MAX_BYTES,
    MAX_BYTES_PER_ACCOUNT,
    MAX_WAITING,
    MAX_WAITING_PER_ACCOUNT,
    WaitingRequests,
)
from gateway.core.decision import Decision, Deferred, Degraded, Reason, Refused
from gateway.serving import answer_watch
from gateway.serving.data_plane import Call
from gateway.serving.deferred import wait_for_reviews
from gateway.serving.gateway import Gateway
from gateway.serving.review import QueuedReview
from gateway.serving.review_answers import answer_with_label
from tests.support.deployments import (
    FULL_RATE,
    Raises,
    batch_of,
    clean_rows,
    letters,
    opened,
    run,
    swap,
)

SHORT_S, LONG_S = 0.3, 20.0


@asynccontextmanager
async def broken(tmp_path: Path, *changes: tuple[str, str]) -> AsyncIterator[tuple[Gateway, QueuedReview]]:
    """A gateway whose every row is deferred, because its models fail."""
    async with opened(letters(tmp_path, FULL_RATE, *changes)) as gateway:
        swap(gateway, Raises(), 0)
        swap(gateway, Raises(), 1)
        assert isinstance(gateway.review, QueuedReview)
        yield gateway, gateway.review


async def deferred(gateway: Gateway, n: int, name: str = "r", who: str = "ada") -> list[Decision]:
    decisions = await gateway.decide(batch_of(clean_rows(n), who=who, name=name))
    assert [type(one.outcome) for one in decisions] == [Deferred] * n
    return decisions


def call_of(gateway: Gateway, who: str = "ada") -> Call:
    return Call(Caller(who), gateway, gateway.loaded, "d", time.time(), 0.0, 0.0, "", [])


async def answer(review: QueuedReview, case_id: str) -> None:
    for claim in await review.store.claim("grace", 60.0, 10_000):
        if claim.case.id == case_id:
            await review.store.resolve(case_id, claim.fence, "grace", answer_with_label(3))
        else:
            await review.store.release(claim.case.id, claim.fence)


class CountedQueries:
    """Counts what a real store is asked."""

    def __init__(self, review: QueuedReview, patch: pytest.MonkeyPatch) -> None:
        self.finds = self.polls = 0
        find_all, decided_within = review.store.find_all, review.store.decided_within

        async def counted_find_all(case_ids: Collection[str]) -> dict[str, CaseRecord]:
            self.finds += 1
            return await find_all(case_ids)

        async def counted_decided_within(seconds: float) -> list[str]:
            self.polls += 1
            return await decided_within(seconds)

        patch.setattr(review.store, "find_all", counted_find_all)
        patch.setattr(review.store, "decided_within", counted_decided_within)


def test_many_waiting_requests_ask_the_store_as_often_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_watch, "POLL_EVERY_S", 0.05)

    async def main() -> None:
        async with broken(tmp_path) as (gateway, review):
            decisions = await deferred(gateway, 16)
            counted = CountedQueries(review, monkeypatch)
            waiting = [wait_for_reviews(call_of(gateway), decisions, 0.5, 100) for _ in range(30)]
            assert await asyncio.gather(*waiting) == [decisions] * 30
            assert counted.finds == 2 * 30, "one look at the beginning, and one at the end"
            assert 1 <= counted.polls <= 11
            polls = counted.polls
            await asyncio.sleep(0.3)
            assert counted.polls <= polls + 1, "no request waits, so nothing is asked"

    run(main)


def test_an_answer_that_another_replica_took_ends_the_wait_of_every_identical_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with broken(tmp_path) as (gateway, _):
            decisions = [*await deferred(gateway, 1, "first"), *await deferred(gateway, 1, "same")]
            waiting = asyncio.create_task(wait_for_reviews(call_of(gateway), decisions, LONG_S, 100))
            await asyncio.sleep(0.2)
            other = open_store("sqlite:///var/review.db", gateway.folder, capacity=9)
            (claim,) = await other.claim("grace", 60.0)
            await other.resolve(claim.case.id, claim.fence, "grace", answer_with_label(3))
            other.close()
            async with asyncio.timeout(LONG_S / 2):
                settled = await waiting
            assert [one.id for one in settled] == ["first0", "same0"]
            for one in settled:
                assert isinstance(one.outcome, Degraded)
                assert (one.outcome.by, one.outcome.reason) == ("review", Reason.UNAVAILABLE)

    run(main)


def test_a_row_that_is_not_answered_stays_deferred_and_the_others_get_their_answers(tmp_path: Path) -> None:
    async def main() -> None:
        async with broken(tmp_path) as (gateway, review):
            decisions = await deferred(gateway, 3)
            await answer(review, "r0")
            waiting = asyncio.create_task(wait_for_reviews(call_of(gateway), decisions, 1.0, 100))
            await asyncio.sleep(0.2)
            await answer(review, "r2")
            settled = await waiting
            assert [type(one.outcome) for one in settled] == [Degraded, Deferred, Degraded]
            assert [list(one.findings) for one in settled] == [list(one.findings) for one in decisions]

    run(main)


def test_a_case_that_expires_ends_the_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with broken(tmp_path, ("expire_after_s: *", "expire_after_s: 1")) as (gateway, _):
            decisions = await deferred(gateway, 1)
            async with asyncio.timeout(LONG_S / 2):
                (settled,) = await wait_for_reviews(call_of(gateway), decisions, LONG_S, 100)
            assert settled.outcome == Refused(Reason.UNAVAILABLE)

    run(main)


@pytest.mark.parametrize(
    "who", [lambda i: "ada", lambda i: f"anonymous@127.0.0.{i}"], ids=["one key", "many addresses"]
)
def test_one_caller_too_many_gets_its_deferral_at_once_and_others_wait(
    tmp_path: Path, who: Callable[[int], str]
) -> None:
    limit = MAX_WAITING_PER_ACCOUNT

    async def main() -> None:
        async with broken(tmp_path) as (gateway, review):
            decisions = await deferred(gateway, 1)
            waiting = [
                asyncio.create_task(wait_for_reviews(call_of(gateway, who(i)), decisions, LONG_S, 100))
                for i in range(limit)
            ]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(LONG_S / 2):
                assert (
                    await wait_for_reviews(call_of(gateway, who(limit)), decisions, LONG_S, 100) == decisions
                )
            bob = asyncio.create_task(wait_for_reviews(call_of(gateway, "bob"), decisions, LONG_S, 100))
            await asyncio.sleep(0.1)
            assert not bob.done()
            for task in (bob, *waiting):
                task.cancel()
            await asyncio.gather(bob, *waiting, return_exceptions=True)
            assert review.answers.requests.total == 0

    run(main)


def test_all_waiting_requests_together_have_a_limit(tmp_path: Path) -> None:
    async def main() -> None:
        async with broken(tmp_path) as (gateway, review):
            decisions = await deferred(gateway, 1)
            for i in range(MAX_WAITING):
                assert review.answers.requests.acquire(f"caller{i}", 100)
            async with asyncio.timeout(LONG_S / 2):
                assert await wait_for_reviews(call_of(gateway), decisions, LONG_S, 100) == decisions

    run(main)


def test_a_store_that_fails_ends_the_wait_with_the_deferral(tmp_path: Path) -> None:
    async def main() -> None:
        async with broken(tmp_path) as (gateway, review):
            decisions = await deferred(gateway, 1)
            waiting = asyncio.create_task(wait_for_reviews(call_of(gateway), decisions, LONG_S, 100))
            await asyncio.sleep(0.2)
            review.store.close()
            async with asyncio.timeout(LONG_S / 2):
                assert await waiting == decisions

    run(main)


def test_a_request_without_a_deferred_row_does_not_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            decisions = [Decision("a", Refused(Reason.ABSTAINED))]
            async with asyncio.timeout(SHORT_S * 10):
                assert await wait_for_reviews(call_of(gateway), decisions, LONG_S, 100) == decisions

    run(main)


def test_the_bodies_that_waiting_requests_hold_have_a_limit_per_account_and_in_all() -> None:
    requests = WaitingRequests()
    assert requests.acquire("ada", MAX_BYTES_PER_ACCOUNT - 1)
    assert not requests.acquire("ada", 2)
    assert requests.acquire("ada", 1)
    others = MAX_BYTES // MAX_BYTES_PER_ACCOUNT - 1
    assert all(requests.acquire(f"{i}", MAX_BYTES_PER_ACCOUNT) for i in range(others))
    assert not requests.acquire("one more", 1)
    assert requests.total == 2 + others
    requests.release("ada", 1)
    assert requests.acquire("one more", 1)
    requests.release("ada", MAX_BYTES_PER_ACCOUNT - 1)
    assert requests.acquire("ada", MAX_BYTES_PER_ACCOUNT - 1)
