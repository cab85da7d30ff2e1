"""What the data plane does for each method of gRPC, and who may ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from fallbacks.oip import open_inference_pb2 as pb
from gateway.access.callers import Caller
from gateway.core.errors import InvalidRequest, Problem
from gateway.grpc.codec import parse_infer, read_message, render_infer
from gateway.protocol import metadata
from gateway.protocol.answers import NoAnswer, answer_of
from gateway.protocol.endings import (
    Ending,
    Rejection,
    Stamp,
    Unanswered,
    code_of,
    ending,
    header_of,
    retry_after_s,
    told,
    words_of,
)
from gateway.serving.data_plane import (
    ANYBODY,
    INFERENCE,
    METADATA,
    NOBODY,
    TIMEOUT_HEADER,
    DataPlane,
    RequestRejected,
    wait_s,
    within_s,
)
from gateway.serving.deferred import wait_for_reviews

Trailers: TypeAlias = tuple[tuple[str, str], ...]
URLS_CHARACTERS = 4096
"""So much of the reviews' addresses fits a trailer: clients take 8 KiB of them in all, and fail beyond it."""
T = TypeVar("T")
SERVICE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"


class Asked(NamedTuple):
    """One call: who asks, and for what. read: the message as it comes, for methods that need it."""

    plane: DataPlane
    caller: Caller
    decision_id: str
    headers: dict[str, str]
    read: Callable[[], Awaitable[bytes]]
    left_s: Callable[[], float | None]


class Told(NamedTuple):
    """What goes back: a message, or None with the status and the words of an error."""

    message: Any | None
    trailers: Trailers
    code: str = "OK"
    words: str = ""


class Method(NamedTuple):
    """One method. needs: the scopes of which one must be the caller's; None lets anybody in."""

    needs: frozenset[str] | None
    answer: Callable[[Asked], Awaitable[Told]]


def ended(end: Unanswered, stamp: Stamp, what: str = "", urls: tuple[str, ...] = ()) -> Told:
    """The status, the words and the trailing metadata of whatever is not answered."""
    more = {} if (wait := retry_after_s(end)) is None else {"retry-after": str(wait)}
    words = (what or words_of(end)).encode("ascii", "replace").decode()
    return Told(None, _trailers(ending(end), stamp, urls, more), code_of(end).grpc, words)


def _trailers(
    end: Ending, stamp: Stamp, urls: tuple[str, ...] = (), more: dict[str, str] | None = None
) -> Trailers:
    """What every call tells of its end, and where the rows that people have will be answered."""
    named = {header_of(name): value for name, value in told(end, stamp, _fitting(urls)).items()}
    return tuple((named | (more or {})).items())


def _fitting(urls: tuple[str, ...]) -> tuple[str, ...]:
    """The first of them, as many as a trailer may hold: the others end in the numbers of their rows."""
    lengths = accumulate(len(url) + 1 for url in urls)
    return urls[: sum(length <= URLS_CHARACTERS for length in lengths)]


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that goes on, with its seat among what is under way, when the caller hangs up."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


async def _infer(asked: Asked) -> Told:
    plane, message = asked.plane, read_message(await asked.read())
    call = plane.begin(asked.caller, message.model_name, message.model_version, asked.decision_id)
    loaded = call.loaded
    request = parse_infer(message, loaded.contract)
    timeout = asked.headers.get(TIMEOUT_HEADER)
    seconds = within_s(loaded.policy.deadline_s, request.timeout_us, timeout, asked.left_s())
    decisions, stamp = await _to_its_end(plane.judge(call, request, seconds))
    if waits_s := wait_s(asked.headers.get("prefer", "").lower()):
        decisions = await wait_for_reviews(plane.gateway, decisions, waits_s)
    answer = answer_of(loaded.contract, request, decisions, loaded.tier(asked.caller.tier))
    if isinstance(answer, NoAnswer):
        return ended(answer.end, stamp, urls=answer.urls)
    response = render_infer(loaded.contract, request, answer, stamp)
    return Told(response, _trailers(answer.ending, stamp, answer.urls))


def _telling(message: Any, what: Callable[[Asked], dict[str, Any]]) -> Callable[[Asked], Awaitable[Told]]:
    """A method that only tells something, whatever its message holds: it is not read."""

    async def answer(asked: Asked) -> Told:
        return Told(ParseDict(what(asked), message(), ignore_unknown_fields=True), ())

    return answer


def _answering(
    kind: Any, message: Any, what: Callable[[Asked, Any], dict[str, Any]]
) -> Callable[[Asked], Awaitable[Told]]:
    """A method that tells what its message asks for."""

    async def answer(asked: Asked) -> Told:
        told = what(asked, await _asked_of(kind, asked))
        return Told(ParseDict(told, message(), ignore_unknown_fields=True), ())

    return answer


async def _asked_of(kind: Any, asked: Asked) -> Any:
    raw = await asked.read()
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise InvalidRequest([Problem("", f"this is no {kind.DESCRIPTOR.name}")]) from None


def _of_model(kind: Any, message: Any, what: Callable[[Any], Any]) -> Callable[[Asked], Awaitable[Told]]:
    """A method that tells something of a model: of its contract."""

    def told(asked: Asked, of: Any) -> dict[str, Any]:
        return what(asked.plane.model(asked.caller, of.name, of.version).contract)  # type: ignore[no-any-return]

    return _answering(kind, message, told)


def _statistics(asked: Asked, of: Any) -> dict[str, Any]:
    gateway = asked.plane.gateway
    loaded = asked.plane.model(asked.caller, of.name, of.version) if of.name else gateway.loaded
    return metadata.statistics(loaded.contract, gateway.statistics)


def _index(asked: Asked) -> dict[str, Any]:
    return {"models": metadata.index(asked.plane.gateway.loaded.contract)}


def _check(asked: Asked, of: Any) -> dict[str, Any]:
    """Health of the server, the service or the model; to watch it is refused, as the protocol allows."""
    if of.service not in ("", SERVICE, asked.plane.gateway.loaded.contract.model):
        raise RequestRejected(Rejection.NOT_FOUND)
    return {"status": "SERVING"}


async def _administration(_: Asked) -> Told:
    raise RequestRejected(Rejection.FORBIDDEN)


METHODS = {
    f"/{SERVICE}/ServerLive": Method(ANYBODY, _telling(pb.ServerLiveResponse, lambda _: metadata.health())),
    f"/{SERVICE}/ServerReady": Method(ANYBODY, _telling(pb.ServerReadyResponse, lambda _: metadata.health())),
    f"/{SERVICE}/ServerMetadata": Method(
        ANYBODY, _telling(pb.ServerMetadataResponse, lambda _: metadata.server())
    ),
    f"/{SERVICE}/ModelReady": Method(
        METADATA, _of_model(pb.ModelReadyRequest, pb.ModelReadyResponse, metadata.model_ready)
    ),
    f"/{SERVICE}/ModelMetadata": Method(
        METADATA, _of_model(pb.ModelMetadataRequest, pb.ModelMetadataResponse, metadata.model)
    ),
    f"/{SERVICE}/ModelConfig": Method(
        METADATA,
        _of_model(pb.ModelConfigRequest, pb.ModelConfigResponse, lambda c: {"config": metadata.config(c)}),
    ),
    f"/{SERVICE}/ModelStatistics": Method(
        METADATA, _answering(pb.ModelStatisticsRequest, pb.ModelStatisticsResponse, _statistics)
    ),
    f"/{SERVICE}/ModelInfer": Method(INFERENCE, _infer),
    f"/{SERVICE}/RepositoryIndex": Method(METADATA, _telling(pb.RepositoryIndexResponse, _index)),
    f"/{SERVICE}/RepositoryModelLoad": Method(NOBODY, _administration),
    f"/{SERVICE}/RepositoryModelUnload": Method(NOBODY, _administration),
    f"/{HEALTH}/Check": Method(
        ANYBODY, _answering(health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, _check)
    ),
}
"""Every method that is served. Streams, shared memory, tracing, log settings are refused as unknown ones."""
