"""What tritonclient can ask over gRPC besides inference, and what the replies must contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
from cases import Case, Target, hold, refused, same, settle
from grpc_health.v1 import health_pb2
from triton_grpc_answers import asks

EXTENSIONS = {
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
}
UNKNOWN_MODEL = "unknown"
SERVING = health_pb2.HealthCheckResponse.SERVING


def metadata_cases(client: Any, on: Target) -> Iterator[Case]:
    """Every call that only asks, with and without a version, a key and JSON."""
    for version in ("", on.version):
        at = partial(tells, client, on, version)
        yield (
            f"is_model_ready, version {version!r}",
            partial(at, "is_model_ready", lambda ready: ready is True),
        )
        yield (
            f"get_model_metadata, version {version!r}",
            partial(at, "get_model_metadata", partial(metadata, on)),
        )
        yield f"get_model_config, version {version!r}", partial(at, "get_model_config", partial(config, on))
        yield f"get_inference_statistics, version {version!r}", partial(statistics, client, on, version)
    for call in ("is_server_live", "is_server_ready"):
        yield call, partial(tells, client, on, None, call, lambda answer: answer is True)
    yield "get_server_metadata", partial(tells, client, on, None, "get_server_metadata", server)
    yield "get_inference_statistics of all models", partial(statistics, client, on, None)
    index = partial(tells, client, on, None, "get_model_repository_index", partial(listed, on))
    yield "get_model_repository_index", index
    yield "metadata as JSON", partial(as_json, client, on)
    for service in ("", "inference.GRPCInferenceService"):
        yield f"grpc.health.v1 of {service!r}", partial(healthy, client, service)
    yield "grpc.health.v1 of an unknown service", partial(unhealthy, client)


async def tells(
    client: Any, on: Target, version: str | None, call: str, right: Callable[[Any], object]
) -> None:
    of = () if version is None else (on.model, version)
    for more in ({}, {"headers": on.auth}, {"client_timeout": 5.0}):
        answer = await settle(getattr(client, call)(*of, **more))
        hold(right(answer) is not False, f"{call} replied {answer!r}")


async def as_json(client: Any, on: Target) -> None:
    config = await settle(client.get_model_config(on.model, as_json=True))
    same("rows", config["config"]["max_batch_size"], on.most)
    reply = await settle(client.get_model_metadata(on.model, as_json=True))
    same("name", reply["name"], on.model)


def server(reply: Any) -> None:
    hold(reply.name and reply.version, "no name or version")
    same("extensions", set(reply.extensions), EXTENSIONS)


def metadata(on: Target, reply: Any) -> None:
    same("name and versions", (reply.name, list(reply.versions)), (on.model, [on.version]))
    hold(reply.platform, "no platform")
    sizes = (on.rows.shape[1:], on.expected.shape[1:])
    for tensor, name, size in zip((*reply.inputs, *reply.outputs), (on.input, on.output), sizes, strict=True):
        same("tensor", (tensor.name, tensor.datatype, list(tensor.shape)), (name, "FP32", [-1, *size]))


def config(on: Target, reply: Any) -> None:
    same("name and rows", (reply.config.name, reply.config.max_batch_size), (on.model, on.most))
    sizes = (on.rows.shape[1:], on.expected.shape[1:])
    both = (*reply.config.input, *reply.config.output)
    for tensor, name, size in zip(both, (on.input, on.output), sizes, strict=True):
        same(
            "tensor", (tensor.name, tensor.data_type, tuple(tensor.dims)), (name, 11, tuple(size))
        )  # TYPE_FP32


def listed(on: Target, reply: Any) -> None:
    seen = [(one.name, one.version, one.state) for one in reply.models]
    hold((on.model, on.version, "READY") in seen, f"the index is {reply}")


async def statistics(client: Any, on: Target, version: str | None) -> None:
    """Counts grow by the rows of a request, and by one success."""
    of = () if version is None else (on.model, version)

    async def counts() -> tuple[int, int]:
        reply = await settle(client.get_inference_statistics(*of, headers=on.auth))
        [one] = [one for one in reply.model_stats if one.name == on.model]
        same("version", one.version, on.version)
        hold(one.execution_count > 0 and one.last_inference > 0, f"replied {one}")
        return one.inference_count, one.inference_stats.success.count

    await asks(client, on)
    rows, requests = await counts()
    await asks(client, on, rows=32)
    same("rows and requests", await counts(), (rows + 32, requests + 1))


def health(client: Any, service: str) -> Any:
    check = client._channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return check(health_pb2.HealthCheckRequest(service=service), timeout=5)


async def healthy(client: Any, service: str) -> None:
    same("status", (await settle(health(client, service))).status, SERVING)


async def unhealthy(client: Any) -> None:
    await refused(lambda: health(client, UNKNOWN_MODEL), grpc.RpcError, "NOT_FOUND")
