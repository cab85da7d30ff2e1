"""What is stopped stays stopped: over a restart, a reload, a load, at every replica, until it is resumed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.core.decision import Decision, Deferred, Reason, Refused, Served, Tensors
from gateway.core.errors import ArtifactError
from gateway.core.model import Predictor
from gateway.serving.gateway import Gateway
from gateway.serving.latch_file import LatchFile
from gateway.serving.repository import Repository
from gateway.serving.review import QueuedReview
from gateway.serving.stops import Scope, Stop
from tests.support.deployments import (
    FULL_RATE,
    batch_of,
    clean_rows,
    edit,
    letters,
    opened,
    outlier_rows,
    predictor_of,
    run,
    swap,
)
from tests.support.several import named


def states(gateway: Gateway) -> dict[str, str]:
    return {name: breaker.state.value for name, breaker in gateway.loaded.breakers.items()}


def stop_of(gateway: Gateway, rung: str | None = None, by: str = "ada") -> Stop:
    scope = gateway.latch.file.scope(gateway.name, rung)
    return Stop(model=scope.model, rung=scope.rung, by=by, at=datetime.now(UTC))


def stop(folder: Path, rung: str | None = None) -> None:
    """What `gateway stop` does without a running gateway."""
    LatchFile.of(folder, None).stop(Stop(rung=rung, by="ada", at=datetime.now(UTC)))


def reasons(decisions: list[Decision]) -> set[object]:
    return {
        one.outcome.reason if isinstance(one.outcome, Refused) else type(one.outcome) for one in decisions
    }


def test_a_stopped_rung_is_stopped_after_a_restart_and_until_it_is_resumed(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    stop(folder, "primary")

    async def main() -> None:
        async with opened(folder) as gateway:
            assert states(gateway) == {"primary": "isolated", "small": "closed"}
            assert not gateway.why_stopped
        LatchFile.of(folder, None).resume(Scope("*", "primary"))
        async with opened(folder) as gateway:
            assert states(gateway) == {"primary": "closed", "small": "closed"}

    run(main)


def test_a_stopped_model_refuses_every_row_after_a_restart_and_calls_no_model(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    stop(folder)

    async def main() -> None:
        async with opened(folder) as gateway:
            assert states(gateway) == {"primary": "isolated", "small": "isolated"}
            assert reasons(await gateway.decide(batch_of(clean_rows(5)))) == {Reason.STOPPED}
            assert reasons(await gateway.decide(batch_of(outlier_rows(5)))) == {Reason.STOPPED}
            assert await gateway.healthy(), "it is as it should be: nothing is to be restarted"

    run(main)


def test_a_reload_brings_no_stopped_rung_back(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    stop(folder, "small")

    async def main() -> None:
        async with opened(folder) as gateway:
            edit(folder, ('version: "1"', 'version: "2"'))
            assert await gateway.reload()
            assert states(gateway) == {"primary": "closed", "small": "isolated"}

    run(main)


def test_a_deployment_that_is_loaded_again_is_still_stopped(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        repository = Repository.open([folder])
        repository.start()
        gateway = repository.gateways["letters"]
        await repository.switch.stop({gateway.latch: stop_of(gateway)})
        await repository.unload("letters")
        await repository.load("letters")
        assert repository.gateways["letters"].why_stopped
        await repository.close()

    run(main)


def test_several_with_one_folder_for_state_are_stopped_each_by_itself_and_all_at_once(tmp_path: Path) -> None:
    folders, state = [named(tmp_path, "birds"), named(tmp_path, "trees")], tmp_path / "state"

    def stopped() -> dict[str, bool]:
        async def main() -> dict[str, bool]:
            repository = Repository.open(folders, state)
            found = {name: bool(one.why_stopped) for name, one in repository.gateways.items()}
            await repository.close()
            return found

        return run(main)

    file, at = LatchFile(state, shared=True), datetime.now(UTC)
    file.stop(Stop(model="trees", by="ada", at=at))
    assert stopped() == {"birds": False, "trees": True}
    file.stop(Stop(by="ada", at=at))
    file.resume(Scope("trees"))
    assert stopped() == {"birds": True, "trees": True}
    file.resume(Scope())
    assert stopped() == {"birds": False, "trees": False}


def test_a_damaged_file_of_stops_starts_stopped_and_a_mended_one_answers_again(tmp_path: Path) -> None:
    folder = letters(tmp_path, FULL_RATE)
    (folder / "var").mkdir()
    (folder / "var" / "stops.json").write_bytes(b"[")

    async def main() -> None:
        repository = Repository.open([folder])
        repository.start()
        gateway = repository.gateways["letters"]
        assert "`gateway resume" in gateway.why_stopped
        assert reasons(await gateway.decide(batch_of(clean_rows(5)))) == {Reason.STOPPED}
        LatchFile.of(folder, None).resume(Scope())
        await until(lambda: not gateway.why_stopped)
        assert reasons(await gateway.decide(batch_of(clean_rows(5), name="b"))) == {Served}
        await repository.close()

    run(main)


async def until(reached: Any) -> None:
    for _ in range(1000):
        if reached():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within ten seconds")


def test_every_process_that_shares_the_file_notices_a_stop_and_its_end(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        both = [Repository.open([folder]) for _ in range(2)]
        gateways = [one.gateways["letters"] for one in both]
        for one in both:
            one.start()
        await both[0].switch.stop({gateways[0].latch: stop_of(gateways[0], "primary")})
        assert states(gateways[0])["primary"] == "isolated", "at once where it was asked for"
        await until(lambda: states(gateways[1])["primary"] == "isolated")
        await both[1].switch.resume({gateways[1].latch: Scope("*", "primary")})
        await until(lambda: states(gateways[0])["primary"] == "closed")
        for one in both:
            await one.close()

    run(main)


class Gated:
    """A model whose answers come when its gate opens."""

    def __init__(self, inner: Predictor) -> None:
        self.inner, self.gate, self.asked = inner, asyncio.Event(), asyncio.Event()

    async def predict(self, inputs: Tensors, /) -> Tensors:
        self.asked.set()
        await self.gate.wait()
        return await self.inner.predict(inputs)


@pytest.mark.parametrize("rung", ["primary", None])
def test_an_answer_that_was_under_way_at_the_stop_does_not_leave(tmp_path: Path, rung: str | None) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            model = Gated(predictor_of(gateway))
            swap(gateway, model)
            asking = asyncio.create_task(gateway.decide(batch_of(clean_rows(3))))
            await model.asked.wait()
            gateway.latch.stop_here(stop_of(gateway, rung))
            model.gate.set()
            assert reasons(gateway.withhold_stopped(await asking)) == {Reason.STOPPED}

    run(main)


def test_a_row_that_is_deferred_as_its_model_stops_is_refused_and_leaves_no_case(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(letters(tmp_path, FULL_RATE)) as gateway:
            deferred = await gateway.decide(batch_of(outlier_rows(3)))
            assert {type(one.outcome) for one in deferred} == {Deferred}
            gateway.latch.stop_here(stop_of(gateway))
            assert reasons(gateway.withhold_stopped(deferred)) == {Reason.STOPPED}
            assert isinstance(gateway.review, QueuedReview)
            store = gateway.review.store
            for _ in range(1000):
                if not (found := await store.find_all([one.id for one in deferred])):
                    break
                await asyncio.sleep(0.01)
            assert not found

    run(main)


def test_a_list_of_isolated_rungs_of_an_earlier_version_becomes_stops_once(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    old = folder / "var" / "isolated.json"
    old.parent.mkdir()
    old.write_text('["primary"]')

    async def main() -> None:
        async with opened(folder) as gateway:
            assert states(gateway) == {"primary": "isolated", "small": "closed"}
        assert not old.exists() and old.with_name("isolated.json.converted").exists()
        LatchFile.of(folder, None).resume(Scope("*", "primary"))
        async with opened(folder) as gateway:
            assert states(gateway) == {"primary": "closed", "small": "closed"}

    run(main)


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b'"primary"', b"\xff", b'["No Name"]'])
def test_a_broken_list_of_isolated_rungs_stops_the_start_and_is_named(tmp_path: Path, content: bytes) -> None:
    folder = letters(tmp_path)
    (folder / "var").mkdir()
    (folder / "var" / "isolated.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"isolated\.json: is not the list of isolated rungs"):
        Gateway.open(folder)
    assert (folder / "var" / "isolated.json").read_bytes() == content
