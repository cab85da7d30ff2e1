"""The data plane over HTTP: the Open Inference Protocol, one function a route.

Everything that can be wrong with a request is settled before it reaches the pipeline, and everything the
pipeline may say has one place in `states`. Nothing malformed gets a 5xx; nothing unauthenticated gets past
health and the server's own metadata, nor has its body read.

    admit(head) ── Reply: refused, or nothing more is needed
                └─ Admitted: so much body may be read, and this answers it

The listener calls that (`gateway/listener`). `ROUTES` is all that there is: each route says who may, and none
can be written without saying so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeVar

import orjson

from gateway.access.callers import Caller
from gateway.access.in_flight import RETRY_S
from gateway.core.decision import Reason, Refused
from gateway.core.errors import InvalidRequest
from gateway.http import openapi
from gateway.http.codings import CODINGS, Undecoded, accepted, decoded, encoded
from gateway.http.lookups import reply_decision, reply_review
from gateway.http.replies import reply_end, reply_infer, reply_json
from gateway.http.routes import Route, Routes, versioned
from gateway.listener.messages import Admitted, Fault, Reply, Request, parts_of
from gateway.protocol import metadata
from gateway.protocol.contract import Contract
from gateway.protocol.endings import Rejection, Unanswered
from gateway.protocol.infer_request import parse_header_length, parse_infer
from gateway.serving.data_plane import (
    ANYBODY,
    INFERENCE,
    METADATA,
    NOBODY,
    OWN,
    TIMEOUT_HEADER,
    Call,
    DataPlane,
    RequestRejected,
    natural,
    wait_s,
    within_s,
)
from gateway.serving.deferred import wait_for_reviews

T = TypeVar("T")

SMALL_BODY_BYTES = 64 * 1024
"""Of a request that says nothing but which of a few things it wants."""
WORTH_CODING_BYTES = 1024
"""A smaller reply fits one packet as it is."""
ANYONE = Caller("anyone")
TIMEOUT_NAME = TIMEOUT_HEADER.encode()
ENDS: dict[Fault, Unanswered] = {
    Fault.INVALID: Rejection.INVALID,
    Fault.TOO_LARGE: Rejection.TOO_LARGE,
    Fault.TOO_SLOW: Rejection.TOO_SLOW,
    Fault.UNSUPPORTED: Rejection.UNSUPPORTED,
    Fault.UNMET_EXPECTATION: Rejection.UNEXPECTED,
    Fault.HEAD_TOO_LARGE: Rejection.HEAD_TOO_LARGE,
    Fault.UNAVAILABLE: Refused(Reason.UNAVAILABLE, retry_after_s=1.0),
}
"""How a request ends that the listener itself refuses."""


class Asked(NamedTuple):
    """One request on its route: `args` from its path, and who asks."""

    plane: DataPlane
    request: Request
    decision_id: str
    args: dict[str, str]
    caller: Caller

    def contract(self) -> Contract:
        """Of the model in the path. Raises Over."""
        return self.plane.model(self.caller, self.args["model"], self.args.get("version")).contract


class HttpHandler:
    """What port 8080 serves: the `Handler` of the listener."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane = plane
        base = plane.gateway.loaded.policy.serving.base_path
        self._routes = Routes(ROUTES, parts_of(base))

    def admit(self, request: Request) -> Admitted | Reply:
        """The reply to a request that needs no body or is refused; else what may come and what answers it.

        Cost: 6 us for an inference request with a key.
        """
        decision_id = self.plane.ids.new()
        try:
            route, args = self._routes.find(request)
            caller = ANYONE
            if route.needs is not ANYBODY:
                caller = self.plane.identify(request.key, request.address, route.needs)
                if not request.claim(caller.principal):
                    raise RequestRejected(Refused(Reason.RATE_LIMITED, RETRY_S))
            return route.step(Asked(self.plane, request, decision_id, args, caller))
        except RequestRejected as over:
            return self._ended(over, decision_id)

    def refuse(self, fault: Fault, what: str = "") -> Reply:
        """The reply to what never became a request that can be routed."""
        return reply_end(ENDS[fault], self.plane.stamp(self.plane.ids.new()), what=what)

    def _ended(self, over: RequestRejected, decision_id: str) -> Reply:
        return reply_end(over.end, self.plane.stamp(decision_id), what=over.what, headers=over.headers)


def _told(what: Callable[[Asked], Any]) -> Callable[[Asked], Reply]:
    """A route that only tells something."""
    return lambda asked: reply_json(orjson.dumps(what(asked)))


def _of_model(what: Callable[[Any], Any]) -> Callable[[Asked], Reply]:
    """A route that tells something of a model: of its contract."""
    return _told(lambda asked: what(asked.contract()))


def _statistics(asked: Asked) -> Any:
    gateway = asked.plane.gateway
    contract = asked.contract() if asked.args else gateway.loaded.contract
    return metadata.statistics(contract, gateway.statistics)


def _openapi(asked: Asked) -> Any:
    loaded = asked.plane.gateway.loaded
    serving = loaded.policy.serving
    return DESCRIBED(loaded.contract, serving.base_path, serving.anonymous == "loopback")


def _index(asked: Asked) -> Admitted:
    """Which models there are. The body may ask for the ready ones alone, and there are no others."""
    contract = asked.plane.gateway.loaded.contract

    async def answer(_: bytes) -> Reply:
        return reply_json(orjson.dumps(metadata.index(contract)))

    return Admitted(SMALL_BODY_BYTES, answer)


def _administration(_: Asked) -> Reply:
    raise RequestRejected(Rejection.FORBIDDEN)


def _unsupported(_: Asked) -> Reply:
    raise RequestRejected(Rejection.UNSUPPORTED)


def _decision(asked: Asked) -> Admitted:
    plane, stamp = asked.plane, asked.plane.stamp(asked.decision_id)
    id_ = asked.args["id"]
    return Admitted(0, lambda _: reply_decision(plane.gateway, plane.peers, asked.caller, id_, stamp))


def _review(asked: Asked) -> Admitted:
    plane, stamp = asked.plane, asked.plane.stamp(asked.decision_id)
    return Admitted(0, lambda _: reply_review(plane.gateway, asked.caller, asked.args["id"], stamp))


def _infer(asked: Asked) -> Admitted:
    request, args = asked.request, asked.args
    call = asked.plane.begin(asked.caller, args["model"], args.get("version"), asked.decision_id)
    limit, headers = call.loaded.contract.body_limit_bytes, request.headers
    coding = "identity"
    if b"content-encoding" in headers:
        coding = headers[b"content-encoding"].decode("latin-1").strip().lower()
        if coding not in CODINGS:
            raise RequestRejected(
                Rejection.UNSUPPORTED, f"Content-Encoding must be one of {', '.join(CODINGS)}"
            )
    if not _fits(headers.get(b"content-length", b"0"), limit):
        raise _too_large(limit)
    return Admitted(limit, partial(_answer, asked.plane, request, call, coding, limit))


def _fits(length: bytes, limit: int) -> bool:
    """Whether a body of the announced length may come; what is no number is for whoever reads the body."""
    if len(length) < 10 and length.isdigit():  # nearly always
        return int(length) <= limit
    return natural(length.decode("latin-1"), limit + 1) <= limit


async def _answer(
    plane: DataPlane, request: Request, call: Call, coding: str, limit: int, body: bytes
) -> Reply | None:
    try:
        with plane.acquire_slot(call.caller):
            if coding != "identity":
                body = decoded(body, coding, limit)
            return await _judged(plane, request, call, body)
    except InvalidRequest as error:
        return reply_end(error, plane.stamp(call.decision_id))
    except (RequestRejected, Undecoded) as over:
        return reply_end(over.end, plane.stamp(call.decision_id), what=over.what)


async def _judged(plane: DataPlane, request: Request, call: Call, body: bytes) -> Reply | None:
    loaded = call.loaded
    header_length = parse_header_length(request.header(b"inference-header-content-length"))
    asked = parse_infer(body, header_length, loaded.contract)
    timeout = request.header(TIMEOUT_NAME)
    decisions, stamp = await plane.judge(
        call, asked, within_s(loaded.policy.deadline_s, asked.timeout_us, timeout)
    )
    prefer = request.header(b"prefer")
    prefer_async = False
    if prefer is not None:
        prefer = prefer.lower()
        prefer_async = "respond-async" in prefer
        if seconds := wait_s(prefer):
            waited = await _unless_gone(request, wait_for_reviews(plane.gateway, decisions, seconds))
            if waited is None:
                return None
            decisions = waited
    tier = loaded.tier(call.caller.tier)
    reply = reply_infer(loaded.contract, asked, decisions, stamp, tier=tier, prefer_async=prefer_async)
    return _coded(reply, request.header(b"accept-encoding"))


def _coded(reply: Reply, accept_encoding: str | None) -> Reply:
    """The reply in a coding that the caller asked for, if it is worth it."""
    if accept_encoding is None or reply.status != 200 or len(reply.body) < WORTH_CODING_BYTES:
        return reply
    coding = accepted(accept_encoding)
    if coding is None:
        return reply
    headers = b"%bcontent-encoding: %b\r\nvary: accept-encoding\r\n" % (reply.headers, coding.encode())
    return Reply(reply.status, headers, encoded(reply.body, coding))


ROUTES = (
    Route("GET", "v2", ANYBODY, _told(lambda _: metadata.server())),
    Route("GET", "v2/health/live", ANYBODY, _told(lambda _: metadata.health())),
    Route("GET", "v2/health/ready", ANYBODY, _told(lambda _: metadata.health())),
    Route("GET", "openapi.json", METADATA, _told(_openapi)),
    Route("GET", "v2/models/stats", METADATA, _told(_statistics)),
    *versioned("GET", "", METADATA, _of_model(metadata.model)),
    *versioned("GET", "/ready", METADATA, _of_model(metadata.model_ready)),
    *versioned("GET", "/config", METADATA, _of_model(metadata.config)),
    *versioned("GET", "/stats", METADATA, _told(_statistics)),
    *versioned("POST", "/infer", INFERENCE, _infer),
    *(
        route
        for method in ("GET", "POST")
        for rest in ("/trace/setting", "/generate", "/generate_stream", "/infer_stream")
        for route in versioned(method, rest, METADATA, _unsupported)
    ),
    Route("POST", "v2/repository/index", METADATA, _index),
    Route("POST", "v2/repository/models/{model}/load", NOBODY, _administration),
    Route("POST", "v2/repository/models/{model}/unload", NOBODY, _administration),
    *(
        Route(method, f"v2/{what}", METADATA, _unsupported)
        for method in ("GET", "POST")
        for what in (
            "logging",
            "trace/setting",
            "systemsharedmemory/{rest*}",
            "cudasharedmemory/{rest*}",
        )
    ),
    Route("GET", "decisions/{id}", OWN, _decision),
    Route("GET", "reviews/{id}", INFERENCE, _review),
)
"""Every route of the data plane."""
DESCRIBED = openapi.described(ROUTES)


async def _unless_gone(request: Request, waiting: Coroutine[Any, Any, T]) -> T | None:
    """What is waited for; None if the caller goes first, and then nobody waits any more."""
    work, gone = asyncio.ensure_future(waiting), asyncio.ensure_future(request.gone())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        gone.cancel()


def _too_large(limit: int) -> RequestRejected:
    return RequestRejected(Rejection.TOO_LARGE, f"the body may have at most {limit} bytes")
