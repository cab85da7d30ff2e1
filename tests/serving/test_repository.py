"""Several deployments in one process: a broken one is not ready by itself, and can be repaired and loaded."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.errors import PolicyError
from gateway.serving.agreement import SHARED_FIELDS
from gateway.serving.repository import NotReady, Repository
from tests.support.deployments import batch_of, clean_rows, edit, key_for, letters, run
from tests.support.several import BREAKING, named, no_certificate, unreadable


@asynccontextmanager
async def opened(*folders: Path, state_dir: Path | None = None) -> AsyncIterator[Repository]:
    """A process over these folders, closed at the end."""
    repository = Repository.open(folders, state_dir)
    repository.start()
    try:
        yield repository
    finally:
        await repository.close()


async def answers(repository: Repository, name: str) -> bool:
    """Whether a deployment decides a row with a model."""
    [decision] = await repository.gateways[name].decide(batch_of(clean_rows(1)))
    return type(decision.outcome).__name__ in ("Served", "Degraded")


def problems_of(repository: Repository, name: str) -> str:
    entry = repository.entries[name]
    assert isinstance(entry, NotReady)
    return "\n".join(map(str, entry.problems))


# ---------------------------------------------------------------- broken at the start


@pytest.mark.parametrize("how", BREAKING)
def test_a_broken_deployment_does_not_stop_the_others_and_is_listed_with_its_problems(
    tmp_path: Path, how: str
) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    BREAKING[how](trees)

    async def main() -> None:
        async with opened(birds, trees) as repository:
            assert list(repository.entries) == ["birds", "trees"]
            assert list(repository.gateways) == ["birds"]
            assert await answers(repository, "birds")
            assert str(trees) in problems_of(repository, "trees")

    run(main)


@pytest.mark.parametrize("how", BREAKING)
def test_a_broken_deployment_is_loaded_once_it_is_repaired_and_the_others_are_the_same(
    tmp_path: Path, how: str
) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    whole = shutil.copytree(trees, tmp_path / "whole")
    BREAKING[how](trees)

    async def main() -> None:
        async with opened(trees, birds) as repository:
            before = repository.gateways["birds"]
            with pytest.raises(PolicyError):
                await repository.load("trees")
            shutil.rmtree(trees)
            shutil.copytree(whole, trees)
            assert (await repository.load("trees")).changed
            assert list(repository.entries) == ["trees", "birds"], "in the order in which they were given"
            assert await answers(repository, "trees")
            assert repository.gateways["birds"] is before

    run(main)


def test_while_one_is_broken_its_problems_are_those_of_the_latest_attempt(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    no_certificate(trees)

    async def main() -> None:
        async with opened(birds, trees) as repository:
            assert "certificate.json" in problems_of(repository, "trees")
            unreadable(trees)
            with pytest.raises(PolicyError, match="defre"):
                await repository.load("trees")
            assert "defre" in problems_of(repository, "trees")

    run(main)


def test_what_is_said_to_callers_of_a_broken_deployment_names_no_path_and_no_guard(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    unreadable(trees)

    async def main() -> None:
        async with opened(birds, trees) as repository:
            entry = repository.entries["trees"]
            assert isinstance(entry, NotReady)
            for secret in (str(tmp_path), "gateway.yaml", "guards", "on_error"):
                assert secret not in entry.reason

    run(main)


def test_if_every_deployment_is_broken_nothing_is_served_and_every_problem_is_named(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    no_certificate(birds)
    unreadable(trees)
    with pytest.raises(PolicyError) as error:
        Repository.open([birds, trees])
    told = str(error.value)
    assert str(birds / "certificate.json") in told
    assert f"{trees / 'gateway.yaml'}:" in told


def test_deployments_that_fail_to_open_leave_no_thread_behind(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    no_certificate(birds)
    no_certificate(trees)
    before = set(threading.enumerate())
    with pytest.raises(PolicyError):
        Repository.open([birds, trees])
    assert set(threading.enumerate()) == before


def test_a_deployment_without_a_readable_name_is_called_as_its_file_or_folder_is(tmp_path: Path) -> None:
    birds = named(tmp_path, "birds")
    by_file, by_folder = named(tmp_path, "trees"), named(tmp_path, "stones")
    twin = shutil.copytree(birds, tmp_path / "twin")
    unreadable(by_file.rename(tmp_path / "elsewhere"))
    BREAKING["no_yaml"](by_folder)
    unreadable(twin)

    async def main() -> None:
        async with opened(birds, tmp_path / "elsewhere", by_folder, twin) as repository:
            assert list(repository.entries) == ["birds", "trees", "stones", "birds-2"]

    run(main)


# ---------------------------------------------------------------- what deployments must agree on


def test_two_deployments_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    one, other = letters(tmp_path / "a"), letters(tmp_path / "b")
    with pytest.raises(PolicyError) as error:
        Repository.open([one, other])
    told = str(error.value)
    assert f"{other / 'gateway.yaml'}:" in told and f"{one / 'gateway.yaml'}:" in told
    assert "name: 'letters'" in told


def test_a_refusal_names_the_problems_of_unreadable_policies_too(tmp_path: Path) -> None:
    one, other, trees = letters(tmp_path / "a"), letters(tmp_path / "b"), named(tmp_path, "trees")
    unreadable(trees)
    with pytest.raises(PolicyError) as error:
        Repository.open([one, other, trees])
    assert "is the name" in str(error.value) and "defre" in str(error.value)


OTHER_VALUES = {
    "replicas": "3",
    "max_connections": "100",
    "max_connections_per_caller": "7",
    "max_in_flight": "50",
    "max_in_flight_per_caller": "5",
    "drain_s": "9",
    "controller_lease_s": "20",
    "base_path": "/team/a",
    "anonymous": "nobody",
    "trusted_proxies": "[10.0.0.1]",
    "hosts": "[models.example.org]",
    "cors": "[https://app.example.org]",
    "person_header": "X-Forwarded-Email",
    "tls": "{certificate: cert.pem, key: key.pem}",
}


def with_setting(folder: Path, field: str) -> Path:
    value = f"{field}: {OTHER_VALUES[field]}"
    more = value if field == "anonymous" else f"anonymous: loopback, {value}"
    if field == "person_header":  # which only named proxies may send
        more += f", trusted_proxies: {OTHER_VALUES['trusted_proxies']}"
    edit(folder, ("serving: {anonymous: loopback}", f"serving: {{{more}}}"))
    return folder


@pytest.mark.parametrize("field", SHARED_FIELDS)
def test_deployments_that_disagree_on_what_they_share_are_refused_with_both_places(
    tmp_path: Path, field: str
) -> None:
    birds, trees = named(tmp_path, "birds"), with_setting(named(tmp_path, "trees"), field)
    with pytest.raises(PolicyError) as error:
        Repository.open([birds, trees])
    [problem] = [one for one in error.value.problems if one.field == f"serving.{field}"]
    assert (problem.file, problem.field) == (str(trees / "gateway.yaml"), f"serving.{field}")
    assert problem.line and f"{birds / 'gateway.yaml'}:" in problem.what
    assert "one value in both" in problem.what


def test_settings_of_a_model_may_differ(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    edit(trees, ("anonymous: loopback", "anonymous: loopback, max_batch_rows: 8"))

    async def main() -> None:
        async with opened(birds, trees) as repository:
            assert repository.gateways["trees"].batcher.size.most == 8

    run(main)


def test_files_for_tls_agree_if_they_are_the_same_files(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    for folder in (birds, trees):
        tls = "tls: {certificate: ../cert.pem, key: ../key.pem}"
        edit(folder, ("anonymous: loopback", f"anonymous: loopback, {tls}"))

    async def main() -> None:
        async with opened(birds, trees) as repository:
            assert len(repository.gateways) == 2

    run(main)


@pytest.mark.parametrize("field", ["max_in_flight", "anonymous"])
def test_a_setting_that_is_shared_is_changed_by_no_reload_of_one(tmp_path: Path, field: str) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")

    async def main() -> None:
        async with opened(birds, trees) as repository:
            limit = repository.in_flight.limit
            with_setting(trees, field)
            with pytest.raises(PolicyError, match="needs a restart"):
                await repository.load("trees")
            assert repository.in_flight.limit == limit
            await repository.unload("trees")
            with pytest.raises(PolicyError, match="one value in both"):
                await repository.load("trees")

    run(main)


def test_two_deployments_with_one_review_queue_are_refused(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    edit(trees, ("sqlite:///var/review.db", "sqlite:///../birds/var/review.db"))
    with pytest.raises(PolicyError, match="is the review queue of"):
        Repository.open([birds, trees])


def test_a_repaired_deployment_with_the_name_of_another_is_refused(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    unreadable(trees)

    async def main() -> None:
        async with opened(birds, trees) as repository:
            shutil.copy(birds / "gateway.yaml", trees / "gateway.yaml")
            with pytest.raises(PolicyError, match="'birds' is the name"):
                await repository.load("trees")
            assert await answers(repository, "birds")

    run(main)


# ---------------------------------------------------------------- load, unload, reload


def test_an_unloaded_deployment_finishes_its_rows_and_comes_back_with_load(tmp_path: Path) -> None:
    quick = ("deadline_s: 0.5", "deadline_s: 0.6")
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees", quick, patient=False)

    async def main() -> None:
        async with opened(birds, trees) as repository:
            gateway = repository.gateways["trees"]
            asked = asyncio.create_task(gateway.decide(batch_of(clean_rows(20))))
            await asyncio.sleep(0)
            assert await repository.unload("trees")
            assert not await repository.unload("trees")
            assert list(repository.gateways) == ["birds"]
            assert len(await asked) == 20
            assert problems_of(repository, "trees") == ""
            await repository.load("trees")
            assert repository.gateways["trees"] is not gateway
            assert await answers(repository, "trees") and await answers(repository, "birds")

    run(main)


def test_the_end_of_a_process_does_not_wait_until_an_unloaded_model_may_be_closed(tmp_path: Path) -> None:
    """It may be once two deadlines have passed: after two minutes."""
    birds = named(tmp_path, "birds", ("deadline_s: 0.5", "deadline_s: 60.0"), patient=False)

    async def main() -> None:
        async with opened(birds) as repository:
            await repository.unload("birds")
            await asyncio.wait_for(repository.close(), 60)

    run(main)


def test_all_are_read_again_but_those_that_were_unloaded_by_hand(tmp_path: Path) -> None:
    birds, trees, stones = (named(tmp_path, name) for name in ("birds", "trees", "stones"))
    no_certificate(stones)

    async def main() -> None:
        async with opened(birds, trees, stones) as repository:
            await repository.unload("trees")
            edit(birds, ('version: "1"', 'version: "2"'))
            done = await repository.load_all()
            assert list(done) == ["birds", "stones"]
            assert repository.gateways["birds"].loaded.policy.version == "2"
            assert isinstance(done["stones"], PolicyError)
            assert list(repository.gateways) == ["birds"]

    run(main)


def test_a_reload_that_fails_leaves_that_deployment_and_the_others_as_they_were(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")

    async def main() -> None:
        async with opened(birds, trees) as repository:
            before = {name: one.loaded for name, one in repository.gateways.items()}
            unreadable(trees)
            with pytest.raises(PolicyError):
                await repository.load("trees")
            assert {name: one.loaded for name, one in repository.gateways.items()} == before

    run(main)


def test_a_process_with_one_deployment_may_unload_and_load_it(tmp_path: Path) -> None:
    birds = named(tmp_path, "birds", ("deadline_s: 0.5", "deadline_s: 0.6"), patient=False)

    async def main() -> None:
        async with opened(birds) as repository:
            await repository.unload("birds")
            assert repository.only is None and await repository.healthy()
            await repository.load("birds")
            assert repository.only is repository.gateways["birds"]

    run(main)


# ---------------------------------------------------------------- state


def test_what_a_process_writes_lies_in_the_folder_for_its_state(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    state = tmp_path / "state"

    async def main() -> None:
        async with opened(birds, trees, state_dir=state) as repository:
            for gateway in repository.gateways.values():
                assert gateway.state == state / gateway.name
            assert repository.run == state / "run"

    run(main)
    assert {path.name for path in state.glob("*/review.db")} == {"review.db"}
    assert {path.parent.name for path in state.glob("*/review.db")} == {"birds", "trees"}
    assert not (birds / "var").exists() and not (trees / "var").exists()


def test_one_deployment_writes_into_the_folder_for_state_itself(tmp_path: Path) -> None:
    birds, state = named(tmp_path, "birds"), tmp_path / "state"

    async def main() -> None:
        async with opened(birds, state_dir=state):
            assert (state / "review.db").is_file()

    run(main)
    assert not (birds / "var").exists()


def test_keys_beside_a_policy_open_its_own_model_and_keys_in_the_state_open_all(tmp_path: Path) -> None:
    birds, trees = named(tmp_path, "birds"), named(tmp_path, "trees")
    of_birds, of_trees = key_for(birds, "ada"), key_for(trees, "ada")

    async def main() -> None:
        async with opened(birds, trees) as repository:
            for key, own, other in ((of_birds, "birds", "trees"), (of_trees, "trees", "birds")):
                [caller] = filter(None, (one.identify(key, "192.0.2.1") for one in repository.callers))
                assert caller.may_use(own) and not caller.may_use(other)
        async with opened(birds, trees, state_dir=tmp_path / "state") as repository:
            [callers] = repository.callers
            assert callers.identify(of_birds, "192.0.2.1") is None

    run(main)
