"""The data plane over HTTP: the Open Inference Protocol, one function a route.

Everything that can be wrong with a request is settled before it reaches the pipeline, and everything the
pipeline may say has one place in `states`. Nothing malformed gets a 5xx; nothing unauthenticated gets past
health and the server's own metadata, nor has its body read.

    admit(head) ── Reply: refused, or nothing more is needed
                └─ Admitted: so much body may be read, and this answers it

Our own server calls that directly (`server.py`); an ASGI server gets the same through `__call__`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple, TypeAlias, TypeVar

from gateway import metadata
from gateway.audit import Record
from gateway.batch import Batch, now_s
from gateway.callers import Caller
from gateway.contract import MAX_BODY_BYTES
from gateway.decision import Reason, Refused
from gateway.errors import InvalidRequest, Problem
from gateway.gateway import Gateway, Loaded
from gateway.ids import Ids
from gateway.later import reply_decision, reply_review, wait_for_people
from gateway.limits import BODY_TIMEOUT_S
from gateway.replies import Reply, reply_end, reply_infer, reply_json, reply_unknown_model
from gateway.request import Admitted, Request, joined, parts_of
from gateway.siblings import Siblings
from gateway.states import Rejection, Stamp, Unanswered
from gateway.wire import InferRequest, parse_header_length, parse_infer

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
T = TypeVar("T")
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

VERSION = version("failsafe-gateway")
LONGEST_WAIT_S = 30
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "parameters", "schedule_policy")


class _Ended(Exception):
    """The request is over before a decision; carries its reply."""

    def __init__(self, end: Rejection | Refused, what: str = "", **headers: str) -> None:
        super().__init__(str(end))
        self.end, self.what, self.headers = end, what, headers


class _Asked(NamedTuple):
    """A caller and its request for inference, whose body is still to come."""

    request: Request
    caller: Caller
    loaded: Loaded
    decision_id: str
    received_s: float
    start_s: float


class DataPlane:
    """What port 8080 serves: a `Handler` of our server, and an ASGI application."""

    def __init__(self, gateway: Gateway, siblings: Siblings) -> None:
        self.gateway = gateway
        self.siblings = siblings
        self._ids = Ids()

    def admit(self, request: Request) -> Admitted | Reply:
        """The reply to a request that needs no body or is refused; else what may come and what answers it.

        Cost: 6 us for an inference request with a key.
        """
        decision_id = self._ids.new()
        try:
            return self._route(request, decision_id)
        except _Ended as over:
            return reply_end(over.end, self._stamp(decision_id), what=over.what, headers=over.headers)

    def refuse(self, end: Unanswered, what: str = "") -> Reply:
        """The reply to what never became a request that can be routed."""
        return reply_end(end, self._stamp(self._ids.new()), what=what)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI door."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        step = self.admit(_request_of(scope, receive))
        reply = step if isinstance(step, Reply) else await self._read_and_answer(step, receive)
        if reply is not None:
            await _send(send, reply)

    async def _read_and_answer(self, admitted: Admitted, receive: Receive) -> Reply | None:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _body_of(receive, admitted.body_limit)
        except TimeoutError:
            return self.refuse(Rejection.TOO_SLOW)
        except _Ended as over:
            return self.refuse(over.end, over.what)
        return None if body is None else await admitted.answer(body)

    def _stamp(self, decision_id: str) -> Stamp:
        loaded = self.gateway.loaded
        return Stamp(loaded.tag, loaded.policy.mode, decision_id)

    def _route(self, request: Request, decision_id: str) -> Admitted | Reply:
        match request.parts:
            case ("v2", "models", model, "versions", number, *rest):
                return self._model(request, decision_id, model, number, tuple(rest))
            case ("v2", "models", model, *rest):
                return self._model(request, decision_id, model, None, tuple(rest))
            case ("v2",):
                _only(request, "GET")
                return reply_json(metadata.render_server("failsafe-gateway", VERSION, EXTENSIONS))
            case ("v2", "health", "live" | "ready"):
                _only(request, "GET")
                return reply_json(metadata.render_health(live=True, ready=True))
            case ("decisions" | "reviews" as kind, id_):
                _only(request, "GET")
                caller, stamp = self._caller(request), self._stamp(decision_id)
                if kind == "reviews":
                    return Admitted(0, lambda _: reply_review(self.gateway, caller, id_, stamp))
                return Admitted(0, lambda _: reply_decision(self.gateway, self.siblings, caller, id_, stamp))
            case _:
                raise _Ended(Rejection.NOT_FOUND)

    def _caller(self, request: Request, scope: str = "infer") -> Caller:
        caller = self.gateway.callers.identify(request.key, request.address)
        if caller is None:
            raise _Ended(Rejection.UNAUTHENTICATED)
        if scope not in caller.scopes:
            raise _Ended(Rejection.FORBIDDEN)
        if not request.claim(caller.principal):
            raise _Ended(Refused(Reason.RATE_LIMITED, 1.0), "too many connections of this caller")
        return caller

    def _model(
        self, request: Request, decision_id: str, model: str, number: str | None, rest: tuple[str, ...]
    ) -> Admitted | Reply:
        received_s, start_s = time.time(), time.perf_counter()
        caller, loaded = self._caller(request), self.gateway.loaded
        contract = loaded.contract
        if model != contract.model or number not in (None, contract.version):
            asked_for = model if number is None else f"{model}/{number}"
            return reply_unknown_model(asked_for, self._stamp(decision_id))
        match rest:
            case ("infer",):
                _only(request, "POST")
                limit = min(MAX_BODY_BYTES, contract.body_limit_bytes)
                _hold_body(request, limit)
                asked = _Asked(request, caller, loaded, decision_id, received_s, start_s)
                return Admitted(limit, partial(self._infer, asked))
            case ():
                body = metadata.render_model(contract)
            case ("ready",):
                body = metadata.render_model_ready(contract, ready=True)
            case ("config",):
                body = metadata.render_config(contract)
            case _:
                raise _Ended(Rejection.NOT_FOUND)
        _only(request, "GET")
        return reply_json(body)

    async def _infer(self, of: _Asked, body: bytes) -> Reply | None:
        request, loaded, id_ = of.request, of.loaded, of.decision_id
        try:
            header_length = parse_header_length(request.header(b"inference-header-content-length"))
            asked = parse_infer(body, header_length, loaded.contract)
            deadline_s = now_s() + _deadline(request, asked, loaded.policy.deadline_s)
        except InvalidRequest as error:
            return reply_end(error, self._stamp(id_))
        ids = (id_,) if asked.rows == 1 else tuple(f"{id_}.{i}" for i in range(asked.rows))
        principals = (of.caller.principal,) * asked.rows
        decisions = await self.gateway.decide(
            Batch(ids, principals, asked.inputs, (deadline_s,) * asked.rows)
        )
        elapsed_s = time.perf_counter() - of.start_s
        policy = decisions[0].policy or loaded.tag
        judged = loaded if policy == loaded.tag else self.gateway.loaded  # a reload may have come between
        stamp = Stamp(policy, judged.policy.mode, id_)
        told = tuple(decisions)
        self.gateway.record(
            Record(id_, of.caller.principal, policy, stamp.mode, of.received_s, elapsed_s, told)
        )
        prefer = (request.header(b"prefer") or "").lower()
        if wait_s := _wait_s(prefer):
            waited = await _unless_gone(request, wait_for_people(self.gateway, decisions, wait_s))
            if waited is None:
                return None
            decisions = waited
        tier = loaded.tier(of.caller.tier)
        prefer_async = "respond-async" in prefer
        return reply_infer(loaded.contract, asked, decisions, stamp, tier=tier, prefer_async=prefer_async)


async def _unless_gone(request: Request, waiting: Coroutine[Any, Any, T]) -> T | None:
    """What is waited for; None if the caller goes first, and then nobody waits any more."""
    work, gone = asyncio.ensure_future(waiting), asyncio.ensure_future(request.gone())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        gone.cancel()


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise _Ended(Rejection.METHOD_NOT_ALLOWED, allow=method)


def _hold_body(request: Request, limit: int) -> None:
    """Refuses a body that is encoded, or that says that it is too large."""
    if (request.header(b"content-encoding") or "identity").lower() != "identity":
        raise _Ended(Rejection.UNSUPPORTED, "Content-Encoding must be identity")
    if _natural(request.header(b"content-length") or "0", limit + 1) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> _Ended:
    return _Ended(Rejection.TOO_LARGE, f"the body may have at most {limit} bytes")


def _deadline(request: Request, asked: InferRequest, longest_s: float) -> float:
    """Seconds until the caller stops waiting: a client may only shorten the policy's deadline."""
    limits_s = [longest_s]
    if asked.timeout_us:
        limits_s.append(asked.timeout_us / 1e6)
    if (header := request.header(b"x-request-timeout-seconds")) is not None:
        try:
            seconds = float(header)
        except ValueError:
            seconds = 0.0
        if not seconds > 0:
            raise InvalidRequest(
                [Problem("x-request-timeout-seconds", "must be a positive number of seconds")]
            )
        limits_s.append(seconds)
    return min(limits_s)


def _wait_s(prefer: str) -> float:
    """The N of `Prefer: wait=N`, at most 30."""
    for part in prefer.replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name == "wait":
            return float(_natural(value, LONGEST_WAIT_S))
    return 0.0


def _natural(text: str, most: int) -> int:
    """A number in a header, at most `most`; 0 for what is no number."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return 0
    return min(int(text), most) if len(text) <= 18 else most


def _request_of(scope: Scope, receive: Receive) -> Request:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    client = scope.get("client")
    address = client[0] if client else ""
    return Request(scope["method"], parts_of(scope["path"]), joined(scope["headers"]), address, gone)


async def _body_of(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None if the caller hangs up in its middle. Raises _Ended if it is too large."""
    body = bytearray()
    more = limit > 0
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return bytes(body)


async def _send(send: Send, reply: Reply) -> None:
    headers = [*reply.pairs(), (b"content-length", b"%d" % len(reply.body))]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
