"""Every method of gRPC that is not inference, each by every caller, and methods that do not exist."""

from __future__ import annotations

from collections.abc import Iterator

from grpc_health.v1 import health_pb2

from bench.same_answers.exchange import Exchange, GrpcExchange
from bench.same_answers.exchanges.grpc_parts import ADA, infer_exchange, message
from bench.same_answers.grpc_wire import HEALTH, SERVICE
from bench.same_answers.sampled_deployment import SampledDeployment
from fallbacks.oip import open_inference_pb2 as pb

CALLER_METADATA: dict[str, tuple[tuple[str, str], ...]] = {
    "anonymous": (),
    "ada": ADA,
    "bob": (("x-api-key", " <<key:bob>> "),),
    "reader": (("x-api-key", "<<key:reader>>"),),
    "watcher": (("authorization", "bearer <<key:watcher>>"),),
    "wrong": (("authorization", "Bearer wrong"),),
    "no scheme": (("authorization", "<<key:ada>>"),),
    "a wrong key before a good one": (("authorization", "Bearer wrong"), ("x-api-key", "<<key:ada>>")),
    "another address": (("x-forwarded-for", "192.0.2.1"),),
}
SERVER_METHODS = ("ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex")
MODEL_METHODS = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
REFUSED_METHODS = ("RepositoryModelLoad", "RepositoryModelUnload")
ABSENT_METHODS = (
    *(
        f"{SERVICE}{name}"
        for name in ("ModelStreamInfer", "SystemSharedMemoryStatus", "TraceSetting", "Nothing", "")
    ),
    f"{SERVICE}modelinfer",
    f"{HEALTH}Watch",
    "/other.Service/Method",
    "/nothing",
)
GARBAGE = b"\x0a\xff\xff"


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """Methods by callers and messages."""
    for caller, metadata in CALLER_METADATA.items():
        for name in (*SERVER_METHODS, *REFUSED_METHODS):
            yield GrpcExchange(f"{name} for {caller}", f"{SERVICE}{name}", b"", metadata)
        for name in MODEL_METHODS:
            held = getattr(pb, f"{name}Request")(name=deployment.name).SerializeToString()
            yield GrpcExchange(f"{name} for {caller}", f"{SERVICE}{name}", held, metadata)
        yield infer_exchange(f"ModelInfer for {caller}", message(deployment, deployment.row), metadata)
        yield GrpcExchange(f"Check for {caller}", f"{HEALTH}Check", b"", metadata)
        yield GrpcExchange(f"an absent method for {caller}", ABSENT_METHODS[0], b"", metadata)
    for name in MODEL_METHODS:
        for model, version in (
            (deployment.name, "1"),
            (deployment.name, "2"),
            ("none", ""),
            ("", ""),
            ("x" * 1000, ""),
            ("\u00e9", ""),
        ):
            held = getattr(pb, f"{name}Request")(name=model, version=version).SerializeToString()
            yield GrpcExchange(f"{name} of {model[:20]!r} {version}", f"{SERVICE}{name}", held, ADA)
        yield GrpcExchange(f"{name} of garbage", f"{SERVICE}{name}", GARBAGE, ADA)
    for name in SERVER_METHODS:
        yield GrpcExchange(f"{name} of garbage", f"{SERVICE}{name}", GARBAGE, ADA)
    services = ("", deployment.name, "inference.GRPCInferenceService", "grpc.health.v1.Health", "none")
    for service in services:
        held = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        yield GrpcExchange(f"Check of {service!r}", f"{HEALTH}Check", held)
    for method in ABSENT_METHODS:
        for stream in (False, True):
            yield GrpcExchange(
                f"absent: {method}{' as a stream' * stream}", method, GARBAGE, ADA, stream=stream
            )
    yield infer_exchange("ModelInfer as a stream", message(deployment, deployment.row), stream=True)
