"""The handler of inference: reads the body, has its rows judged, and writes the reply in JSON or binary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from gateway.core.decision import Decision, deferred_ids
from gateway.core.errors import InvalidRequest
from gateway.http.codings import CODINGS, Coding, accepted_coding, decode_small, encode, unsupported_coding
from gateway.http.replies import reply_infer, reply_unanswered
from gateway.http.routes import RoutedRequest
from gateway.listener.messages import Admitted, Headers, Reply, Request
from gateway.protocol.endings import Rejection, Stamp
from gateway.protocol.infer_request import (
    INLINE_BYTES,
    InferRequest,
    parse_header_length,
    parse_http_infer,
    parses_inline,
)
from gateway.serving.data_plane import Call, DataPlane, RequestRejected
from gateway.serving.deferred import wait_for_reviews
from gateway.serving.gateway import Gateway
from gateway.serving.waits import TIMEOUT_HEADER, bounded_natural, preferred_wait_s, time_limit_s

T = TypeVar("T")

MIN_ENCODED_BYTES = 1024
"""A smaller reply fits one packet as it is."""
REFUSED_MEDIA_TYPES = frozenset({b"text/plain", b"multipart/form-data"})
"""What browsers send to another site without asking it first, for pages that show no origin."""
INLINE_ENCODED_BYTES = 128 * 1024
"""A larger reply is compressed in a thread: it takes more than a millisecond."""
_TIMEOUT_NAME = TIMEOUT_HEADER.encode()


def infer(routed: RoutedRequest) -> Admitted:
    """Admits a body of at most the model's limit. Raises RequestRejected for what the head rules out."""
    routed.plane.refuse_indebted(routed.caller)
    path, request, headers = routed.path, routed.request, routed.request.headers
    call = routed.plane.begin(
        routed.caller,
        path["model"],
        path.get("version"),
        routed.decision_id,
        request.header(b"traceparent"),
        request.begun_s,
    )
    limit = call.loaded.contract.body_limit_bytes
    _check_media_type(headers)
    coding = _content_coding(headers)
    if not _fits(headers.get(b"content-length", b"0"), limit):
        raise RequestRejected(Rejection.TOO_LARGE, f"the body may have at most {limit} bytes")
    return Admitted(limit, partial(_begin, routed.plane, request, call, coding, limit))


def _content_coding(headers: Headers) -> str:
    """The coding of the body. Raises RequestRejected for one that is not supported."""
    if b"content-encoding" not in headers:
        return "identity"
    coding = headers[b"content-encoding"].decode("latin-1").strip().lower()
    if coding not in CODINGS:
        raise unsupported_coding()
    return coding


def _check_media_type(headers: Headers) -> None:
    """Raises RequestRejected for a type that pages of any site may send, unless that is curl's own.

    A request with a key passes: a page cannot add one without asking first. Nothing else depends on the type:
    tritonclient sends none, and `curl -d` one of a form.
    """
    if b"x-api-key" in headers or b"authorization" in headers or b"content-type" not in headers:
        return
    media_type = headers[b"content-type"]
    if media_type.partition(b";")[0].strip().lower() in REFUSED_MEDIA_TYPES:
        raise RequestRejected(
            Rejection.UNSUPPORTED_MEDIA,
            "Content-Type must be application/json or application/octet-stream, or absent",
            headers={"accept": "application/json, application/octet-stream"},
        )


def _fits(content_length: bytes, limit: int) -> bool:
    """Whether the announced length is within the limit; what is no number is left to the listener."""
    if len(content_length) < 10 and content_length.isdigit():  # the usual case
        return int(content_length) <= limit
    return bounded_natural(content_length.decode("latin-1"), limit + 1) <= limit


def _begin(
    plane: DataPlane, request: Request, call: Call, coding: str, limit: int, body: bytes
) -> Coroutine[Any, Any, Reply | None] | Reply:
    """The reply at once to a request that could not be answered in time; else the work that answers it."""
    try:
        plane.refuse_hopeless(call, body)
    except RequestRejected as rejected:
        return _reply_rejected(plane, call, rejected)
    return _answer(plane, request, call, coding, limit, body)


def _reply_rejected(plane: DataPlane, call: Call, rejected: RequestRejected) -> Reply:
    stamp = plane.stamp(call.decision_id, call.gateway)
    return reply_unanswered(rejected.end, stamp, error=rejected.error, room=rejected.room)


async def _answer(
    plane: DataPlane, request: Request, call: Call, coding: str, limit: int, body: bytes
) -> Reply | None:
    """The reply to a request whose body has been read; None if the client has hung up."""
    try:
        with plane.acquire_slot(call.caller):
            return await _judge(plane, request, call, coding, limit, body)
    except InvalidRequest as error:
        size = min(len(body), INLINE_BYTES) if coding == "identity" else INLINE_BYTES
        plane.meter.charge_invalid_bytes(call.caller.principal, size)
        return reply_unanswered(error, call.loaded.stamp(call.decision_id))
    except RequestRejected as rejected:
        return _reply_rejected(plane, call, rejected)


async def _judge(
    plane: DataPlane, request: Request, call: Call, coding: str, limit: int, body: bytes
) -> Reply | None:
    loaded = call.loaded
    header_length = parse_header_length(request.header(b"inference-header-content-length"))
    decoded = body if coding == "identity" else decode_small(body, coding, INLINE_BYTES)
    if decoded is not None and parses_inline(decoded, header_length, loaded.contract):
        infer_request = parse_http_infer(decoded, header_length, loaded.contract)
    else:  # off the event loop
        how = {"form": "http", "coding": coding, "limit": limit, "header_length": header_length}
        infer_request = await plane.parse(call, how, body)
    call = plane.under_policy_in_force(call)
    loaded = call.loaded
    timeout = request.header(_TIMEOUT_NAME)
    seconds = time_limit_s(loaded.policy.deadline_s, infer_request.timeout_us, timeout)
    decisions, stamp = await plane.judge(call, infer_request, seconds)
    prefer = request.header(b"prefer")
    prefer_async = False
    if prefer is not None:
        prefer = prefer.lower()
        prefer_async = "respond-async" in prefer
        if seconds := preferred_wait_s(prefer):
            size_bytes = max(len(body), infer_request.inputs_bytes)
            reviewed = await _unless_gone(request, wait_for_reviews(call, decisions, seconds, size_bytes))
            if reviewed is None:
                return None
            decisions = call.gateway.withhold_stopped(reviewed)
    reply = _written(call, infer_request, stamp, prefer_async, decisions)
    if _stays_as_it_is(reply):
        return reply
    write = partial(_written, call, infer_request, stamp, prefer_async)
    return await _encoded_unless_stopped(request, call.gateway, decisions, reply, write)


def _written(
    call: Call, infer_request: InferRequest, stamp: Stamp, prefer_async: bool, decisions: list[Decision]
) -> Reply:
    loaded = call.loaded
    tier = loaded.tier(call.caller.tier)
    reply = reply_infer(
        loaded.contract, infer_request, decisions, stamp, tier=tier, prefer_async=prefer_async
    )
    if deferred := deferred_ids(decisions):
        reply = reply._replace(on_unsent=partial(call.gateway.withdraw, deferred))
    return reply


def _stays_as_it_is(reply: Reply) -> bool:
    return reply.status != 200 or len(reply.body) < MIN_ENCODED_BYTES


async def _encoded_unless_stopped(
    request: Request,
    gateway: Gateway,
    decisions: list[Decision],
    reply: Reply,
    write: Callable[[list[Decision]], Reply],
) -> Reply:
    """A reply in a coding that the client accepts; written again without what is stopped meanwhile."""
    accepted = accepted_coding(request.header(b"accept-encoding"))
    while accepted is not None and not _stays_as_it_is(reply):
        encoded = await _encoded(reply, accepted)
        leaving = gateway.withhold_stopped(decisions)
        if leaving is decisions:
            return encoded
        decisions, reply = leaving, write(leaving)
    return reply


async def _encoded(reply: Reply, coding: Coding) -> Reply:
    """The reply in a coding that the client accepts."""
    headers = b"%bcontent-encoding: %b\r\nvary: accept-encoding\r\n" % (reply.headers, coding.encode())
    if len(reply.body) > INLINE_ENCODED_BYTES:  # zlib works without the interpreter's lock
        return reply._replace(headers=headers, body=await asyncio.to_thread(encode, reply.body, coding))
    return reply._replace(headers=headers, body=encode(reply.body, coding))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work; None, and the work is cancelled, if the client hangs up first."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.disconnected())
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        gone.cancel()
