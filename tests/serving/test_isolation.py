"""An isolated rung stays isolated: over a restart, a reload, in every replica, until it is restored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.core.errors import ArtifactError
from gateway.serving.gateway import Gateway
from gateway.serving.isolation import IsolationFile
from gateway.serving.repository import Repository
from tests.support.deployments import edit, letters, run
from tests.support.several import named


def states(gateway: Gateway) -> dict[str, str]:
    return {name: breaker.state.value for name, breaker in gateway.loaded.breakers.items()}


async def isolate(folder: Path, *rungs: str) -> None:
    """What an operator does at a running gateway, which then ends."""
    gateway = Gateway.open(folder)
    for rung in rungs:
        assert await gateway.set_isolation(rung, isolated=True) == "isolated"
    await gateway.close()


def test_an_isolated_rung_is_isolated_after_a_restart_and_until_it_is_restored(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        await isolate(folder, "primary")
        again = Gateway.open(folder)
        assert states(again) == {"primary": "isolated", "small": "closed"}
        assert await again.set_isolation("primary", isolated=False) == "closed"
        await again.close()
        third = Gateway.open(folder)
        assert states(third) == {"primary": "closed", "small": "closed"}
        await third.close()

    run(main)


def test_an_isolated_rung_is_isolated_after_a_restart_and_a_reload(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        await isolate(folder, "small")
        gateway = Gateway.open(folder)
        edit(folder, ('version: "1"', 'version: "2"'))
        assert await gateway.reload()
        assert states(gateway) == {"primary": "closed", "small": "isolated"}
        await gateway.set_isolation("small", isolated=False)
        edit(folder, ('version: "2"', 'version: "3"'))
        assert await gateway.reload()
        assert states(gateway) == {"primary": "closed", "small": "closed"}
        await gateway.close()

    run(main)


def test_a_deployment_that_is_loaded_again_keeps_its_isolated_rungs(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        repository = Repository.open([folder])
        repository.start()
        await repository.gateways["letters"].set_isolation("primary", isolated=True)
        await repository.unload("letters")
        await repository.load("letters")
        assert states(repository.gateways["letters"])["primary"] == "isolated"
        await repository.close()

    run(main)


def test_several_deployments_with_one_folder_for_state_isolate_each_their_own(tmp_path: Path) -> None:
    folders, state = [named(tmp_path, "birds"), named(tmp_path, "trees")], tmp_path / "state"

    async def main() -> None:
        first = Repository.open(folders, state)
        await first.gateways["trees"].set_isolation("primary", isolated=True)
        await first.close()
        second = Repository.open(folders, state)
        found = {name: states(one)["primary"] for name, one in second.gateways.items()}
        await second.close()
        assert found == {"birds": "closed", "trees": "isolated"}

    run(main)


def test_replicas_that_isolate_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    file = IsolationFile(tmp_path / "var")

    async def main() -> None:
        names = [f"rung-{i}" for i in range(12)]
        await asyncio.gather(*(asyncio.to_thread(file.put, name, isolated=True) for name in names))
        assert file.rungs() == set(names)
        await asyncio.gather(*(asyncio.to_thread(file.put, name, isolated=False) for name in names[1:]))
        assert file.rungs() == {"rung-0"}

    run(main)


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[1]", b'"primary"', b"\xff"])
def test_a_file_of_isolated_rungs_that_is_no_such_list_stops_the_start_and_is_named(
    tmp_path: Path, content: bytes
) -> None:
    folder = letters(tmp_path)
    (folder / "var").mkdir()
    (folder / "var" / "isolated.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"isolated\.json: is not the list of isolated rungs"):
        Gateway.open(folder)


def test_a_broken_file_of_isolated_rungs_keeps_the_old_policy_and_what_is_isolated(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        gateway = Gateway.open(folder)
        await gateway.set_isolation("primary", isolated=True)
        (folder / "var" / "isolated.json").write_bytes(b"[")
        edit(folder, ('version: "1"', 'version: "2"'))
        with pytest.raises(ArtifactError):
            await gateway.reload()
        with pytest.raises(ArtifactError):
            await gateway.set_isolation("primary", isolated=False)
        assert states(gateway)["primary"] == "isolated"
        await gateway.close()

    run(main)
