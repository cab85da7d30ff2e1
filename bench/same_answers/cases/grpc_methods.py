"""Every method of gRPC that is not inference, each by every caller, and methods that there are not."""

from __future__ import annotations

from collections.abc import Iterator

from grpc_health.v1 import health_pb2

from bench.same_answers.case import Case, Grpc
from bench.same_answers.cases.grpc_parts import ADA, infer, message
from bench.same_answers.deployment import Deployment
from bench.same_answers.grpc_wire import HEALTH, SERVICE
from fallbacks.oip import open_inference_pb2 as pb

CALLERS: dict[str, tuple[tuple[str, str], ...]] = {
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
TELLING = ("ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex")
OF_MODEL = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
REFUSED = ("RepositoryModelLoad", "RepositoryModelUnload")
ABSENT = (
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


def cases(of: Deployment) -> Iterator[Case]:
    """Methods by callers and messages."""
    for caller, metadata in CALLERS.items():
        for name in (*TELLING, *REFUSED):
            yield Grpc(f"{name} for {caller}", f"{SERVICE}{name}", b"", metadata)
        for name in OF_MODEL:
            held = getattr(pb, f"{name}Request")(name=of.name).SerializeToString()
            yield Grpc(f"{name} for {caller}", f"{SERVICE}{name}", held, metadata)
        yield infer(f"ModelInfer for {caller}", message(of, of.row), metadata)
        yield Grpc(f"Check for {caller}", f"{HEALTH}Check", b"", metadata)
        yield Grpc(f"an absent method for {caller}", ABSENT[0], b"", metadata)
    for name in OF_MODEL:
        for model, version in (
            (of.name, "1"),
            (of.name, "2"),
            ("none", ""),
            ("", ""),
            ("x" * 1000, ""),
            ("\u00e9", ""),
        ):
            held = getattr(pb, f"{name}Request")(name=model, version=version).SerializeToString()
            yield Grpc(f"{name} of {model[:20]!r} {version}", f"{SERVICE}{name}", held, ADA)
        yield Grpc(f"{name} of garbage", f"{SERVICE}{name}", GARBAGE, ADA)
    for name in TELLING:
        yield Grpc(f"{name} of garbage", f"{SERVICE}{name}", GARBAGE, ADA)
    services = ("", of.name, "inference.GRPCInferenceService", "grpc.health.v1.Health", "none")
    for service in services:
        held = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        yield Grpc(f"Check of {service!r}", f"{HEALTH}Check", held)
    for method in ABSENT:
        for stream in (False, True):
            yield Grpc(f"absent: {method}{' as a stream' * stream}", method, GARBAGE, ADA, stream=stream)
    yield infer("ModelInfer as a stream", message(of, of.row), stream=True)
