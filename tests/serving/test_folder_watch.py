"""Reload by file change: once the files have been left alone, and once for each content."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.deployment.folder_files import FileState, FolderState
from gateway.serving.folder_watch import POLL_S, SETTLE_S, Settling
from gateway.serving.gateway import Gateway
from gateway.serving.loaded import LoadedDeployment
from gateway.serving.read_folder import ReadFolder
from tests.serving.test_repository import opened
from tests.support.deployments import edit, letters, rebound, run

ON_CHANGE = ("anonymous: loopback", "anonymous: loopback, reload: on_change")


def state(content: int) -> FolderState:
    return (FileState("gateway.yaml", content, 1, 1),)


def test_a_folder_that_is_as_it_was_read_is_never_due() -> None:
    settling = Settling()
    assert not any(settling.is_due(state(1), state(1), second) for second in range(100))


def test_a_folder_is_due_once_it_has_been_left_alone_and_not_while_it_is_written() -> None:
    settling = Settling()
    written = [settling.is_due(state(1), state(2 + at), at * SETTLE_S) for at in range(20)]
    assert not any(written)
    assert not settling.is_due(state(1), state(21), 19.5 * SETTLE_S)
    assert settling.is_due(state(1), state(21), 20 * SETTLE_S)


def test_what_was_tried_is_not_due_again_until_it_changes_again() -> None:
    settling = Settling()
    settling.is_due(state(1), state(2), 0.0)
    assert settling.is_due(state(1), state(2), SETTLE_S)
    assert not any(settling.is_due(state(2), state(2), SETTLE_S + later) for later in range(1, 50))
    settling.is_due(state(2), state(1), 60.0)
    assert settling.is_due(state(2), state(1), 60.0 + SETTLE_S), "the content before it is another one too"


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(1200):
        if reached():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("not reached within a minute")


async def looked_at(gateway: Gateway, times: int = 8) -> None:
    """Waits for some looks at the folder."""
    await asyncio.sleep(times * POLL_S)


def test_a_changed_policy_is_loaded_by_itself_and_one_that_is_broken_changes_nothing_and_is_tried_once(
    tmp_path: Path,
) -> None:
    folder = letters(tmp_path, ON_CHANGE)

    async def main() -> None:
        async with opened(folder) as repository:
            gateway = repository.gateways["letters"]
            first = gateway.loaded
            edit(folder, ('version: "1"', 'version: "2"'))
            await until(lambda: gateway.loaded is not first)
            second = gateway.loaded
            assert second.policy.version == "2"
            certificate = (folder / "certificate.json").read_bytes()
            (folder / "certificate.json").write_bytes(certificate[:-100])
            await until(lambda: gateway.reloads.failures > 0)
            assert "certificate.json" in gateway.reloads.problems[0]
            await looked_at(gateway)
            assert (gateway.reloads.failures, gateway.loaded) == (1, second)
            (folder / "certificate.json").write_bytes(certificate)
            await until(lambda: not gateway.reloads.problems)
            assert (gateway.reloads.failures, gateway.loaded) == (1, second), "the same policy as before"

    run(main)


def test_without_it_a_change_waits_for_a_request(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        async with opened(folder) as repository:
            gateway = repository.gateways["letters"]
            before = gateway.loaded
            edit(folder, ('version: "1"', 'version: "2"'))
            await looked_at(gateway)
            assert gateway.loaded is before
            assert (await repository.load("letters")).changed

    run(main)


def test_a_folder_that_is_written_while_it_is_read_is_refused(tmp_path: Path) -> None:
    folder = letters(tmp_path)

    async def main() -> None:
        async with opened(folder) as repository:
            gateway = repository.gateways["letters"]
            before, load = gateway.loaded, gateway._load

            def interrupted(deployment: Deployment) -> LoadedDeployment:
                loaded = load(deployment)
                (folder / "guards.npz").touch()
                return loaded

            edit(folder, ('version: "1"', 'version: "2"'))
            gateway._load = interrupted  # type: ignore[method-assign]
            with pytest.raises(PolicyError, match="was written while it was read"):
                await gateway.reload()
            assert gateway.loaded is before
            del gateway._load
            assert await gateway.reload()

    run(main)


def test_a_model_that_a_refused_policy_names_is_watched_too(tmp_path: Path) -> None:
    folder = letters(tmp_path)
    reading = ReadFolder(folder, Deployment.read(folder).policy)
    rebound(folder, ("path: fallback.onnx", "path: later.onnx"))
    reading.read()
    before = reading.state
    assert reading.state_now() == before
    (folder / "later.onnx").write_bytes(b"x")
    assert reading.state_now() != before
