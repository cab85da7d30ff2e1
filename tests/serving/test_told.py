"""A case is kept for a caller who was told of it, and for no other: over HTTP and gRPC, on a real store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.serving.review import QueuedReview
from gateway.serving.waits import TIMEOUT_HEADER
from tests.support.data_planes import INFER, LIMITS, PlaneFixture, keys_for, limited_plane, request_of
from tests.support.deployments import FULL_RATE, letters
from tests.support.grpc_client import INFER as GRPC_INFER
from tests.support.grpc_client import grpc_client
from tests.support.grpc_client import request_of as grpc_request_of

BUSY_S, SHORT_S, LONG_S = 0.4, 0.08, 5.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneFixture]:
    folder = letters(tmp_path_factory.mktemp("told"), FULL_RATE)
    with limited_plane(folder, LIMITS, keys_for(folder)) as made:
        yield made


@pytest.fixture
def plane(whole: PlaneFixture) -> PlaneFixture:
    whole.run(whole.answer_all)
    return whole


@contextmanager
def busy_store(plane: PlaneFixture) -> Iterator[None]:
    """Another program writes to the review database during the block."""
    other = sqlite3.connect(plane.gateway.state / "review.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("COMMIT")
        other.close()


async def settled(plane: PlaneFixture) -> set[str]:
    """The ids of the cases that wait, once the store has done what it was asked."""
    assert isinstance(plane.gateway.review, QueuedReview)
    await plane.gateway.batcher.drain()
    await plane.gateway.review.finish(LONG_S)
    return await plane.cases()


def test_a_caller_who_was_refused_at_its_deadline_leaves_no_case_behind(plane: PlaneFixture) -> None:
    async def main() -> None:
        with busy_store(plane):
            asked = [
                asyncio.create_task(plane.ada.infer(plane.strange[i : i + 1], {TIMEOUT_HEADER: str(limit_s)}))
                for i, limit_s in enumerate([SHORT_S, LONG_S] * 5)
            ]
            await asyncio.sleep(BUSY_S)
        replies = await asyncio.gather(*asked)
        assert [reply.status for reply in replies] == [504, 422] * 5
        told = {reply.headers["x-failsafe-decision-id"] for reply in replies if reply.status == 422}
        assert await settled(plane) == told

    plane.run(main)


@pytest.mark.parametrize("how", ["reset", "closed", "half closed"])
def test_a_caller_who_hangs_up_leaves_no_case_behind(plane: PlaneFixture, how: str) -> None:
    async def main() -> None:
        body, headers = request_of(plane.strange[:1], True)
        async with plane.ada.connection() as wire:
            with busy_store(plane):
                await wire.send(plane.ada.encode("POST", INFER, body, headers))
                await asyncio.sleep(BUSY_S / 2)
                match how:
                    case "reset":
                        wire.reset()
                    case "closed":
                        wire.writer.close()
                    case _:
                        wire.writer.write_eof()
                await asyncio.sleep(BUSY_S / 2)
            await asyncio.sleep(BUSY_S / 2)
        assert await settled(plane) == set()

    plane.run(main)


def test_a_caller_who_closes_its_sending_half_still_gets_an_answer(plane: PlaneFixture) -> None:
    async def main() -> None:
        body, headers = request_of(plane.good[:1], True)
        async with plane.ada.connection() as wire:
            await wire.send(plane.ada.encode("POST", INFER, body, headers))
            wire.writer.write_eof()
            assert (await wire.reply()).status == 200

    plane.run(main)


def test_a_caller_who_hangs_up_while_it_waits_for_a_person_leaves_no_case_behind(plane: PlaneFixture) -> None:
    async def main() -> None:
        body, headers = request_of(plane.strange[:1], True)
        async with plane.ada.connection() as wire:
            await wire.send(plane.ada.encode("POST", INFER, body, [*headers, ("prefer", "wait=20")]))
            await plane.new_case()
        await asyncio.sleep(BUSY_S)
        assert await settled(plane) == set()

    plane.run(main)


def test_a_grpc_call_that_is_cancelled_leaves_no_case_behind(plane: PlaneFixture) -> None:
    async def main() -> None:
        async with grpc_client(plane) as client:
            raw = grpc_request_of(plane.strange[:1]).SerializeToString()
            with busy_store(plane):
                call = client.channel.unary_unary(GRPC_INFER)(raw, metadata=client.metadata(()))
                await asyncio.sleep(BUSY_S)
                call.cancel()
                await asyncio.sleep(0.1)
            await asyncio.sleep(BUSY_S)
            assert await settled(plane) == set()

    plane.run(main)


@pytest.mark.parametrize(
    "answer", [lambda stored: stored[:-1], lambda stored: None, lambda stored: ["stored"]]
)
def test_a_store_whose_answer_is_none_keeps_no_case_that_it_has_stored(
    plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Any], Any]
) -> None:
    async def main() -> None:
        review = plane.gateway.review
        assert isinstance(review, QueuedReview)
        put = review.store.put

        async def answers_wrongly(cases: Any, /) -> Any:
            return answer(await put(cases))

        monkeypatch.setattr(review.store, "put", answers_wrongly)
        assert (await plane.ada.infer(plane.strange[:1])).status == 503
        assert await settled(plane) == set()

    plane.run(main)


def test_what_cannot_be_withdrawn_now_is_withdrawn_later(
    plane: PlaneFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.serving.review.WITHDRAW_AGAIN_S", 0.05)

    async def main() -> None:
        reply = await plane.ada.infer(plane.strange[:1])
        id_ = reply.headers["x-failsafe-decision-id"]
        review = plane.gateway.review
        assert isinstance(review, QueuedReview)
        with monkeypatch.context() as patch:

            async def fails(_: object) -> int:
                raise sqlite3.OperationalError("the disk is gone")

            patch.setattr(review.store, "withdraw", fails)
            review.withdraw([id_])
            await asyncio.sleep(0.1)
            assert await plane.cases() == {id_}
        assert await settled(plane) == set()

    plane.run(main)
