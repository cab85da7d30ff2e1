"""The methods of gRPC: the handler and the scopes of each, and the reply of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from fallbacks.oip import open_inference_pb2 as pb
from gateway.access.callers import Caller
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, deferred_ids
from gateway.core.errors import InvalidRequest, Problem
from gateway.grpc.bounds import INLINE_BYTES, MAX_OTHER_BYTES, Outline, outline_of
from gateway.grpc.codec import NO_MESSAGE, parse_grpc_infer, read_small_message, render_grpc_infer
from gateway.protocol import metadata
from gateway.protocol.answers import NoAnswer, build_answer
from gateway.protocol.contract import Contract
from gateway.protocol.endings import (
    ANSWERED,
    Ending,
    Rejection,
    Stamp,
    UnansweredEnd,
    ending_of,
    error_text,
    header_name,
    reply_parameters,
    retry_after_s,
    status_of,
)
from gateway.protocol.infer_request import InferRequest
from gateway.serving.data_plane import (
    ALWAYS_FORBIDDEN,
    INFERENCE_SCOPES,
    METADATA_SCOPES,
    PUBLIC,
    Call,
    DataPlane,
    RequestRejected,
)
from gateway.serving.deferred import wait_for_reviews
from gateway.serving.gateway import Gateway
from gateway.serving.waits import TIMEOUT_HEADER, preferred_wait_s, time_limit_s

Trailers: TypeAlias = tuple[tuple[str, str], ...]
URLS_CHARACTERS = 4096
"""The most characters of review URLs in a trailer: clients fail beyond 8 KiB of trailers in all."""
Judged: TypeAlias = tuple[list[Decision], Stamp]
SERVICE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"


class MethodCall(NamedTuple):
    """One call with its caller identified.

    read: reads the message, if a method needs it; left_s: seconds to the call's deadline, None without one.
    """

    plane: DataPlane
    caller: Caller
    decision_id: str
    headers: dict[str, str]
    read: Callable[[], Awaitable[bytes]]
    left_s: Callable[[], float | None]


class CallReply(NamedTuple):
    """A message with trailing metadata, or None with the name of the status and the text of an error."""

    message: Any | None
    trailers: Trailers
    status: str = ANSWERED.grpc
    error: str = ""


MethodHandler: TypeAlias = Callable[[MethodCall], Awaitable[CallReply]]
"""Replies to one call. Raises RequestRejected or InvalidRequest."""


class Method(NamedTuple):
    """One method. scopes: of which the caller's key needs one; PUBLIC: no key is needed."""

    scopes: frozenset[str] | None
    handler: MethodHandler


def error_reply(end: UnansweredEnd, stamp: Stamp, error: str = "", urls: tuple[str, ...] = ()) -> CallReply:
    """The reply to a call without an answer. error: the text, if not the usual one."""
    more = {} if (wait := retry_after_s(end)) is None else {"retry-after": str(wait)}
    text = (error or error_text(end)).encode("ascii", "replace").decode()
    return CallReply(None, _trailers(ending_of(end), stamp, urls, more), status_of(end).grpc, text)


def _trailers(
    ending: Ending, stamp: Stamp, urls: tuple[str, ...] = (), more: dict[str, str] | None = None
) -> Trailers:
    """The trailing metadata of every call: how it ended, and where deferred rows can be polled."""
    parameters = reply_parameters(ending, stamp, _fitting(urls))
    trailers = {header_name(name): value for name, value in parameters.items()}
    return tuple((trailers | (more or {})).items())


def _fitting(urls: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the first as a trailer may hold; the others differ only in the numbers of their rows."""
    lengths = accumulate(len(url) + 1 for url in urls)
    return urls[: sum(length <= URLS_CHARACTERS for length in lengths)]


async def _run_to_end(work: Coroutine[Any, Any, Judged], gateway: Gateway) -> Judged:
    """The result of work that goes on, and keeps its in-flight slot, when the client cancels the call.

    Rows that are deferred after that are withdrawn from the review queue.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is None:
            gateway.withdraw(deferred_ids(task.result()[0]))
        raise


def message_too_large(limit: int) -> RequestRejected:
    """Why a call ends whose message has more bytes than `limit`."""
    return RequestRejected(Rejection.TOO_LARGE, f"a message may have at most {limit} bytes")


async def _infer(call: MethodCall) -> CallReply:
    plane, principal = call.plane, call.caller.principal
    plane.refuse_indebted(call.caller)
    begun_s = now_s()
    raw = await call.read()
    trace = call.headers.get("traceparent")
    try:
        outline, message = _read_message(raw)
        inference = plane.begin(call.caller, outline.model, outline.version, call.decision_id, trace, begun_s)
    except InvalidRequest:
        plane.meter.charge_invalid_bytes(principal, min(len(raw), INLINE_BYTES))
        raise
    try:
        if len(raw) > (limit := inference.loaded.contract.body_limit_bytes):
            raise message_too_large(limit)
        plane.refuse_hopeless(inference, raw)
        return await _judge(call, inference, await _parse(plane, inference, outline, message, raw))
    except RequestRejected as rejected:
        stamp = inference.loaded.stamp(call.decision_id)
        return error_reply(rejected.end, stamp, rejected.error)
    except InvalidRequest as error:
        plane.meter.charge_invalid_bytes(principal, min(len(raw), INLINE_BYTES))
        return error_reply(error, inference.loaded.stamp(call.decision_id))


def _read_message(raw: bytes) -> tuple[Outline, Any | None]:
    """The outline of a message, and the message itself if that is small beside raw data."""
    try:
        outline = outline_of(raw) if len(raw) > INLINE_BYTES else None
    except (IndexError, UnicodeDecodeError):
        raise InvalidRequest([Problem("", NO_MESSAGE)]) from None
    if outline is not None and outline.other_bytes > INLINE_BYTES:
        return outline, None
    message = read_small_message(raw)
    return Outline(message.model_name, message.model_version, 0), message


async def _parse(
    plane: DataPlane, inference: Call, outline: Outline, message: Any | None, raw: bytes
) -> InferRequest:
    """The request in a message: of a small one at once, of a large one off the event loop."""
    contract = inference.loaded.contract
    if message is not None and (len(raw) <= INLINE_BYTES or contract.views_binary):
        return parse_grpc_infer(message, contract)
    how = {"form": "grpc", "model": outline.model, "version": outline.version}
    return await plane.parse(inference, how, raw)


async def _judge(call: MethodCall, inference: Call, request: InferRequest) -> CallReply:
    plane = call.plane
    inference = plane.under_policy_in_force(inference)
    loaded, timeout, left_s = inference.loaded, call.headers.get(TIMEOUT_HEADER), call.left_s()
    if left_s is not None:
        left_s += now_s() - inference.begun_s
    seconds = time_limit_s(loaded.policy.deadline_s, request.timeout_us, timeout, left_s)
    decisions, stamp = await _run_to_end(plane.judge(inference, request, seconds), inference.gateway)
    if review_s := preferred_wait_s(call.headers.get("prefer", "").lower()):
        reviewed = await wait_for_reviews(inference, decisions, review_s, request.inputs_bytes)
        decisions = inference.gateway.withhold_stopped(reviewed)
    answer = build_answer(loaded.contract, request, decisions, loaded.tier(call.caller.tier))
    if isinstance(answer, NoAnswer):
        return error_reply(answer.end, stamp, urls=answer.urls)
    response = render_grpc_infer(loaded.contract, request, answer, stamp)
    return CallReply(response, _trailers(answer.ending, stamp, answer.urls))


def _unread(reply_type: Any, document: Callable[[MethodCall], dict[str, Any]]) -> MethodHandler:
    """A handler that replies with a document without reading the call's message."""

    async def handle(call: MethodCall) -> CallReply:
        return _reply_document(reply_type, document(call))

    return handle


def _read(
    message_type: Any, reply_type: Any, document: Callable[[MethodCall, Any], dict[str, Any]]
) -> MethodHandler:
    """A handler that reads the call's message and replies with a document."""

    async def handle(call: MethodCall) -> CallReply:
        raw = await call.read()
        if len(raw) > MAX_OTHER_BYTES:
            raise message_too_large(MAX_OTHER_BYTES)
        try:
            message = message_type.FromString(raw)
        except DecodeError:
            raise InvalidRequest([Problem("", f"this is no {message_type.DESCRIPTOR.name}")]) from None
        return _reply_document(reply_type, document(call, message))

    return handle


def _of_contract(
    message_type: Any, reply_type: Any, document: Callable[[Contract], dict[str, Any]]
) -> MethodHandler:
    """A handler that replies with a document about the model that the call's message names."""
    return _read(
        message_type,
        reply_type,
        lambda call, of: document(call.plane.model(call.caller, of.name, of.version).loaded.contract),
    )


def _reply_document(reply_type: Any, document: dict[str, Any]) -> CallReply:
    return CallReply(ParseDict(document, reply_type(), ignore_unknown_fields=True), ())


def _statistics(call: MethodCall, of: Any) -> dict[str, Any]:
    plane, caller = call.plane, call.caller
    gateways = [plane.model(caller, of.name, of.version)] if of.name else plane.usable(caller)
    return metadata.model_statistics([(one.loaded.contract, one.statistics) for one in gateways])


def _server_health(call: MethodCall) -> dict[str, Any]:
    return metadata.health(ready=not call.plane.why_not_ready())


def _model_ready(call: MethodCall, of: Any) -> dict[str, Any]:
    return {"ready": call.plane.is_ready(call.caller, of.name, of.version)}


def _index(call: MethodCall, of: Any) -> dict[str, Any]:
    return {"models": call.plane.index(call.caller, of.ready)}


def _health(call: MethodCall, of: Any) -> dict[str, Any]:
    """Health of the server, the service or the model; `Watch` is not served, as the protocol allows."""
    repository = call.plane.repository
    if of.service in ("", SERVICE):
        serving = not call.plane.why_not_ready()
    elif of.service in repository.entries:
        gateway = repository.gateways.get(of.service)
        serving = gateway is not None and not call.plane.why_not_ready(gateway)
    else:
        raise RequestRejected(Rejection.NOT_FOUND)
    return {"status": "SERVING" if serving else "NOT_SERVING"}


async def _forbidden(_: MethodCall) -> CallReply:
    """For methods of administration, which is not on this port."""
    raise RequestRejected(Rejection.FORBIDDEN)


METHODS = {
    f"/{SERVICE}/ServerLive": Method(PUBLIC, _unread(pb.ServerLiveResponse, _server_health)),
    f"/{SERVICE}/ServerReady": Method(PUBLIC, _unread(pb.ServerReadyResponse, _server_health)),
    f"/{SERVICE}/ServerMetadata": Method(
        PUBLIC, _unread(pb.ServerMetadataResponse, lambda _: metadata.server())
    ),
    f"/{SERVICE}/ModelReady": Method(
        METADATA_SCOPES, _read(pb.ModelReadyRequest, pb.ModelReadyResponse, _model_ready)
    ),
    f"/{SERVICE}/ModelMetadata": Method(
        METADATA_SCOPES, _of_contract(pb.ModelMetadataRequest, pb.ModelMetadataResponse, metadata.model)
    ),
    f"/{SERVICE}/ModelConfig": Method(
        METADATA_SCOPES,
        _of_contract(pb.ModelConfigRequest, pb.ModelConfigResponse, lambda c: {"config": metadata.config(c)}),
    ),
    f"/{SERVICE}/ModelStatistics": Method(
        METADATA_SCOPES, _read(pb.ModelStatisticsRequest, pb.ModelStatisticsResponse, _statistics)
    ),
    f"/{SERVICE}/ModelInfer": Method(INFERENCE_SCOPES, _infer),
    f"/{SERVICE}/RepositoryIndex": Method(
        METADATA_SCOPES, _read(pb.RepositoryIndexRequest, pb.RepositoryIndexResponse, _index)
    ),
    f"/{SERVICE}/RepositoryModelLoad": Method(ALWAYS_FORBIDDEN, _forbidden),
    f"/{SERVICE}/RepositoryModelUnload": Method(ALWAYS_FORBIDDEN, _forbidden),
    f"/{HEALTH}/Check": Method(
        PUBLIC, _read(health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, _health)
    ),
}
"""Every method that is served. Streams, shared memory, tracing and log settings are not."""
