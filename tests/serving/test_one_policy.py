"""One policy judges, renders and stamps the whole of an answer, also where a reload comes in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.access.callers import Caller
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Refused, Tensors
from gateway.protocol.disclosure import Label
from gateway.serving.data_plane import Call, DataPlane
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import PeerReplicas
from tests.serving.test_repository import opened
from tests.support.deployments import FULL_RATE, batch_of, clean_rows, edit, letters, predictor_of, run, swap

TWICE = ('version: "1"', 'version: "2"')
LABELS = ("{anonymous: {rounded: 2}", "{anonymous: label")


class Gated:
    """A model that answers once it may, and says when it was asked."""

    def __init__(self, gateway: Gateway) -> None:
        self._inner = predictor_of(gateway)
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.asked.set()
        await self.may.wait()
        return await self._inner.predict(inputs)


@asynccontextmanager
async def plane_on(folder: Path) -> AsyncIterator[DataPlane]:
    async with opened(folder) as repository:
        plane = DataPlane(repository, PeerReplicas(repository.run, repository.replica, "no token"))
        try:
            yield plane
        finally:
            plane.close()


def begun(plane: DataPlane) -> Call:
    """A call whose head has been read, of a caller on this machine without a key."""
    caller = plane.identify(None, "127.0.0.1", frozenset({"infer"}))
    assert isinstance(caller, Caller)
    return plane.begin(caller, "letters", None, "d1", None, now_s())


async def changed(plane: DataPlane, folder: Path, change: tuple[str, str]) -> None:
    edit(folder, change)
    assert (await plane.repository.load("letters")).changed


def test_rows_that_wait_for_a_batch_are_judged_by_the_policy_that_they_were_admitted_by(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with plane_on(folder) as plane:
            gateway = plane.repository.gateways["letters"]
            gated, old = Gated(gateway), gateway.loaded.tag
            swap(gateway, gated)
            x = clean_rows(12)
            waiting = [
                asyncio.create_task(gateway.decide(batch_of(x[at : at + 3], f"c{at}", name=f"r{at}.")))
                for at in (0, 3, 6)
            ]
            await gated.asked.wait()
            await changed(plane, folder, TWICE)
            after = asyncio.create_task(gateway.decide(batch_of(x[9:], "later", name="later.")))
            gated.may.set()
            found: list[list[Decision]] = await asyncio.gather(*waiting)
            assert {one.policy for request in found for one in request} == {old}
            assert {one.policy for one in await after} == {gateway.loaded.tag} != {old}

    run(main)


def test_the_rows_of_a_request_of_which_a_limit_refuses_some_are_of_one_policy(tmp_path: Path) -> None:
    folder = letters(tmp_path, ("per_s: *, burst: *", "per_s: 0.001, burst: 2"))

    async def main() -> None:
        async with plane_on(folder) as plane:
            gateway = plane.repository.gateways["letters"]
            gated, old = Gated(gateway), gateway.loaded.tag
            swap(gateway, gated)
            deciding = asyncio.create_task(gateway.decide(batch_of(clean_rows(4))))
            await gated.asked.wait()
            await changed(plane, folder, TWICE)
            gated.may.set()
            decisions = await deciding
            assert sum(isinstance(one.outcome, Refused) for one in decisions) == 2
            assert {one.policy for one in decisions} == {old}

    run(main)


def test_a_body_that_arrives_over_a_reload_is_answered_by_the_policy_in_force_then(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with plane_on(folder) as plane:
            gateway = plane.repository.gateways["letters"]
            call = begun(plane)
            await changed(plane, folder, LABELS)
            late = plane.under_policy_in_force(call)
            assert late.loaded is gateway.loaded
            assert isinstance(late.loaded.tier("anonymous"), Label), "rounded as the policy says that judges"
            assert late.loaded.stamp("d1").policy == gateway.loaded.tag

    run(main)


def test_a_body_that_was_read_by_another_contract_is_answered_by_the_policy_of_that_contract(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path, FULL_RATE)

    async def main() -> None:
        async with plane_on(folder) as plane:
            call = begun(plane)
            await changed(plane, folder, TWICE)
            late = plane.under_policy_in_force(call)
            assert late is call
            assert late.loaded.contract.version == "1"
            assert late.loaded.tag != plane.repository.gateways["letters"].loaded.tag

    run(main)
