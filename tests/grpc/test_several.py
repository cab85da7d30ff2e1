"""Several models on one gRPC port, one of which is not ready."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from fallbacks.oip import open_inference_pb2 as pb
from gateway.access.callers import add_key
from gateway.replica import bind
from gateway.serving.data_plane import DataPlane
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import Repository
from tests.support.deployments import clean_rows, edit, run
from tests.support.grpc_client import INFER, SERVICE, GrpcClient, listener_of, request_of
from tests.support.several import named, no_certificate

HEALTH = "/grpc.health.v1.Health/Check"


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[Repository, GrpcClient]]:
    """birds, which takes few rows, and trees, which are ready, and stones, which is not."""
    folders = [named(tmp_path, name) for name in ("birds", "trees", "stones")]
    edit(folders[0], ("anonymous: loopback", "anonymous: loopback, max_batch_rows: 2"))
    no_certificate(folders[-1])
    state, scopes = tmp_path / "state", frozenset({"infer"})
    key = add_key(state, "ada", tier="trusted", per_s=None, scopes=scopes)
    repository = Repository.open(folders, state)
    repository.start()
    plane = DataPlane(repository, PeerReplicas(repository.run, repository.replica, "no token"))
    own = bind("127.0.0.1", 0)
    address = f"127.0.0.1:{own.getsockname()[1]}"
    server = listener_of(plane)
    await server.start(own)
    try:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            yield repository, GrpcClient(channel, address, key)
    finally:
        await server.stop(0)
        await repository.close()


def test_each_model_answers_by_its_name_and_errors_name_its_policy(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (repository, client):
            for model in ("birds", "trees"):
                result = await client(INFER, request_of(clean_rows(1), model_name=model))
                assert result.response.model_name == model
                wrong = await client(INFER, pb.ModelInferRequest(model_name=model))
                assert wrong.code == "INVALID_ARGUMENT"
                assert wrong.trailers["x-failsafe-policy"] == repository.gateways[model].loaded.tag

    run(main)


def test_a_model_that_is_not_ready_says_so_to_every_method(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, client):
            asked = await client(f"/{SERVICE}/ModelReady", pb.ModelReadyRequest(name="stones"))
            assert asked.code == "OK" and not pb.ModelReadyResponse.FromString(asked.message or b"").ready
            healthy = await client(HEALTH, health_pb2.HealthCheckRequest(service="stones"))
            status = health_pb2.HealthCheckResponse.FromString(healthy.message or b"").status
            assert status == health_pb2.HealthCheckResponse.NOT_SERVING
            refused = await client(INFER, request_of(clean_rows(1), model_name="stones"))
            assert refused.outcome == ("RESOURCE_EXHAUSTED", "refused", "unavailable", "none")
            unknown = await client(f"/{SERVICE}/ModelReady", pb.ModelReadyRequest(name="ferns"))
            assert unknown.code == "NOT_FOUND"

    run(main)


def test_the_server_is_ready_while_one_model_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (repository, client):
            for left in (True, False):
                await repository.unload("birds" if left else "trees")
                asked = await client(f"/{SERVICE}/ServerReady", pb.ServerReadyRequest())
                assert pb.ServerReadyResponse.FromString(asked.message or b"").ready is left
            live = await client(f"/{SERVICE}/ServerLive", pb.ServerLiveRequest())
            assert pb.ServerLiveResponse.FromString(live.message or b"").live

    run(main)


def test_the_index_lists_every_model_with_its_state(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, client):
            asked = await client(f"/{SERVICE}/RepositoryIndex", pb.RepositoryIndexRequest())
            listed = pb.RepositoryIndexResponse.FromString(asked.message or b"").models
            assert {one.name: one.state for one in listed} == {
                "birds": "READY",
                "trees": "READY",
                "stones": "UNAVAILABLE",
            }
            assert [bool(one.reason) for one in listed] == [False, False, True]
            asked = await client(f"/{SERVICE}/RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
            listed = pb.RepositoryIndexResponse.FromString(asked.message or b"").models
            assert [one.name for one in listed] == ["birds", "trees"]

    run(main)


def test_statistics_are_of_one_model_or_of_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, client):
            await client(INFER, request_of(clean_rows(1), model_name="trees"))
            asked = await client(f"/{SERVICE}/ModelStatistics", pb.ModelStatisticsRequest())
            counts = {
                one.name: one.inference_count
                for one in pb.ModelStatisticsResponse.FromString(asked.message or b"").model_stats
            }
            assert counts == {"birds": 0, "trees": 1}
            asked = await client(f"/{SERVICE}/ModelStatistics", pb.ModelStatisticsRequest(name="birds"))
            [one] = pb.ModelStatisticsResponse.FromString(asked.message or b"").model_stats
            assert one.name == "birds"

    run(main)


def test_a_message_may_be_as_large_as_its_own_model_takes(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (repository, client):
            limits = {n: one.loaded.contract.body_limit_bytes for n, one in repository.gateways.items()}
            assert limits["birds"] < limits["trees"]
            large = request_of(clean_rows(1), model_name="birds")
            large.raw_input_contents[0] = bytes(limits["birds"])
            result = await client(INFER, large)
            assert result.code == "INVALID_ARGUMENT" and str(limits["birds"]) in result.error
            large.raw_input_contents[0] = bytes(limits["trees"])
            assert str(limits["trees"]) in (await client(INFER, large)).error

    run(main)
