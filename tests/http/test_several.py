"""Several models on one HTTP port: each by its name, one that is not ready beside those that are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from gateway.access.callers import add_key
from gateway.access.keys import SCOPES
from gateway.http.handler import HttpHandler
from gateway.serving.data_plane import DataPlane
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import Repository
from tests.support.data_planes import (
    REMOTE,
    SITE,
    Client,
    ClientReply,
    Listeners,
    Rows,
    listeners_of,
    request_of,
)
from tests.support.deployments import Hangs, clean_rows, key_for, outlier_rows, run, swap
from tests.support.several import named, no_certificate

STATE = "state"


@dataclass(frozen=True)
class SeveralPlane:
    """birds and trees, which are ready, and stones, whose certificate is missing."""

    repository: Repository
    listeners: Listeners
    state: Path

    def client(self, name: str, *models: str) -> Client:
        """A caller from elsewhere, with every scope and a key for these models; for all if none is named."""
        key = add_key(
            self.state,
            name,
            tier="trusted",
            per_s=None,
            scopes=frozenset(SCOPES),
            models=frozenset(models) or None,
        )
        for callers in self.repository.callers:
            callers.check()
        return Client(self.listeners, key, REMOTE)


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[SeveralPlane]:
    folders = [named(tmp_path, name) for name in ("birds", "trees", "stones")]
    no_certificate(folders[-1])
    repository = Repository.open(folders, tmp_path / STATE)
    repository.start()
    try:
        plane = DataPlane(repository, PeerReplicas(repository.run, repository.replica, "no token"))
        async with listeners_of(HttpHandler(plane, SITE)) as listeners:
            yield SeveralPlane(repository, listeners, tmp_path / STATE)
    finally:
        await repository.close()


async def infer(client: Client, model: str, x: Rows) -> ClientReply:
    body, headers = request_of(x)
    return await client.request("POST", f"/v2/models/{model}/infer", body, headers)


def test_each_model_answers_by_its_name_and_replies_name_its_policy(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            ada = plane.client("ada")
            for model in ("birds", "trees"):
                reply = await infer(ada, model, clean_rows(1))
                assert reply.status == 200 and reply.json["model_name"] == model
                assert reply.parameters["fs_policy"] == plane.repository.gateways[model].loaded.tag
                assert (await ada.get(f"/v2/models/{model}")).json["name"] == model
                bad = await ada.request("POST", f"/v2/models/{model}/infer", b"{}")
                assert bad.parameters["fs_policy"] == plane.repository.gateways[model].loaded.tag

    run(main)


def test_a_model_that_is_not_ready_is_unavailable_and_its_neighbours_are_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            ada = plane.client("ada")
            for reply in (
                await ada.get("/v2/models/stones/ready"),
                await ada.get("/v2/models/stones"),
                await infer(ada, "stones", clean_rows(1)),
            ):
                assert reply.outcome == (503, "refused", "unavailable")
                assert "'stones' is not ready" in reply.json["error"]
                assert reply.headers["retry-after"]
            assert (await ada.get("/v2/models/birds/ready")).status == 200
            assert (await ada.get("/v2/health/ready")).json == {"live": True, "ready": True}
            unknown = await ada.get("/v2/models/ferns/ready")
            assert unknown.outcome == (404, "refused", "not_found")

    run(main)


def test_the_process_is_ready_while_one_model_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            client = Client(plane.listeners, None, REMOTE)
            await plane.repository.unload("birds")
            assert (await client.get("/v2/health/ready")).status == 200
            await plane.repository.unload("trees")
            assert (await client.get("/v2/health/ready")).outcome == (503, "refused", "unavailable")
            assert (await client.get("/v2/health/live")).json == {"live": True, "ready": False}

    run(main)


def test_the_index_lists_every_model_with_its_state_and_can_be_asked_for_ready_ones(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            ada = plane.client("ada")
            listed = json.loads((await ada.request("POST", "/v2/repository/index")).body)
            states = {one["name"]: one["state"] for one in listed}
            assert states == {"birds": "READY", "trees": "READY", "stones": "UNAVAILABLE"}
            assert [bool(one["reason"]) for one in listed] == [False, False, True]
            ready = json.loads((await ada.request("POST", "/v2/repository/index", b'{"ready": true}')).body)
            assert [one["name"] for one in ready] == ["birds", "trees"]

    run(main)


def test_a_key_for_some_models_opens_and_lists_those_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            bob = plane.client("bob", "birds")
            assert (await infer(bob, "birds", clean_rows(1))).status == 200
            for model in ("trees", "stones"):
                assert (await infer(bob, model, clean_rows(1))).outcome == (403, "refused", "forbidden")
            listed = json.loads((await bob.request("POST", "/v2/repository/index")).body)
            assert [one["name"] for one in listed] == ["birds"]
            counted = (await bob.get("/v2/models/stats")).json["model_stats"]
            assert [one["name"] for one in counted] == ["birds"]

    run(main)


@pytest.mark.parametrize("what", ["load", "unload"])
def test_loading_is_refused_here_with_the_route_of_the_administration(tmp_path: Path, what: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            reply = await plane.client("ada").request("POST", f"/v2/repository/models/birds/{what}")
            assert reply.outcome == (403, "refused", "forbidden")
            assert "POST /models/NAME/load" in reply.json["error"]
            assert "birds" in plane.repository.gateways

    run(main)


def test_decisions_and_reviews_of_every_model_are_found_by_callers_who_may_use_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            ada = plane.client("ada")
            x = outlier_rows(1)
            deferred = await infer(ada, "trees", x)
            assert deferred.status == 422 and deferred.json["review_url"]
            decision = f"/decisions/{deferred.parameters['fs_decision_id']}"
            assert (await ada.get(decision)).json["policy"].startswith("trees@")
            assert (await ada.get(deferred.json["review_url"])).json["state"] == "waiting"
            same_name_without_trees = plane.client("ada", "birds")
            assert (await same_name_without_trees.get(decision)).status == 404
            assert (await same_name_without_trees.get(deferred.json["review_url"])).status == 404

    run(main)


def test_requests_in_flight_are_counted_over_all_models(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            ada, bob = plane.client("ada"), plane.client("bob")
            plane.repository.in_flight.limit_per_caller = 1
            before = plane.repository.gateways["birds"].loaded
            swap(plane.repository.gateways["birds"], Hangs())
            waiting = asyncio.create_task(infer(ada, "birds", clean_rows(1)))
            for _ in range(500):
                if plane.repository.in_flight.total:
                    break
                await asyncio.sleep(0.01)
            assert (await infer(ada, "trees", clean_rows(1))).outcome == (429, "refused", "rate_limited")
            assert (await infer(bob, "trees", clean_rows(1))).status == 200
            waiting.cancel()
            plane.repository.gateways["birds"].loaded = before

    run(main)


def test_a_request_whose_model_is_unloaded_while_its_body_arrives_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            ada = plane.client("ada")
            body, headers = request_of(clean_rows(1))
            sent = ada.encode("POST", "/v2/models/birds/infer", body, headers)
            async with ada.connection() as wire:
                await wire.send(sent[: -len(body)])
                await asyncio.sleep(0.2)
                await plane.repository.unload("birds")
                await wire.send(body)
                reply = await wire.reply()
            assert reply.status == 503 and b"unloaded" in reply.body

    run(main)


def test_the_document_has_the_paths_and_schemas_of_every_model_and_no_open_reference(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as plane:
            whole = (await plane.client("ada").get("/openapi.json")).json
            assert {"/v2/models/birds/infer", "/v2/models/trees/infer"} <= whole["paths"].keys()
            assert not [path for path in whole["paths"] if "{model}" in path and "repository" not in path]
            ids = [op["operationId"] for path in whole["paths"].values() for op in path.values()]
            assert len(ids) == len(set(ids))
            text = json.dumps(whole)
            for name in whole["components"]["schemas"]:
                Draft202012Validator.check_schema(whole["components"]["schemas"][name])
            for part in text.split('"#/components/schemas/')[1:]:
                assert part.split('"')[0] in whole["components"]["schemas"]
            limited = (await plane.client("bob", "birds").get("/openapi.json")).json
            assert "trees" not in json.dumps(limited)

    run(main)


def test_the_same_name_in_two_files_of_keys_sees_no_decision_of_the_other(tmp_path: Path) -> None:
    folders = [named(tmp_path, name) for name in ("birds", "trees")]
    keys = [key_for(folder, "ada") for folder in folders]

    async def main() -> None:
        repository = Repository.open(folders)
        repository.start()
        plane = DataPlane(repository, PeerReplicas(repository.run, repository.replica, "no token"))
        async with listeners_of(HttpHandler(plane, SITE)) as listeners:
            of_birds, of_trees = (Client(listeners, key, REMOTE) for key in keys)
            deferred = await infer(of_birds, "birds", outlier_rows(1))
            path = f"/decisions/{deferred.parameters['fs_decision_id']}"
            assert (await of_birds.get(path)).status == 200
            assert (await of_trees.get(path)).status == 404
            assert (await of_trees.get(deferred.json["review_url"])).status == 404
            assert (await infer(of_trees, "birds", clean_rows(1))).outcome == (403, "refused", "forbidden")
        await repository.close()

    run(main)
