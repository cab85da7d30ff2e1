"""The data plane over HTTP: the Open Inference Protocol as raw ASGI, one function a route.

Everything that can be wrong with a request is settled before it reaches the pipeline, and everything the
pipeline may say has one place in `states`. Nothing malformed gets a 5xx; nothing unauthenticated gets past
health and the server's own metadata.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from importlib.metadata import version
from typing import Any, NamedTuple, TypeAlias, TypeVar

import orjson

from fallbacks.cases import CaseState
from gateway import metadata
from gateway.audit import Record
from gateway.batch import Batch, now_s, within
from gateway.callers import Caller
from gateway.contract import MAX_BODY_BYTES
from gateway.decision import Decision, Deferred, Reason, Refused
from gateway.decisions import rows_anywhere
from gateway.errors import InvalidRequest, Problem
from gateway.gateway import Gateway
from gateway.replies import JSON, Reply, reply_end, reply_infer, reply_unknown_model
from gateway.review import People, outcome_of
from gateway.siblings import Siblings
from gateway.states import Rejection, Stamp
from gateway.wire import InferRequest, parse_header_length, parse_infer

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
T = TypeVar("T")
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_TIMEOUT_S = 10.0
VERSION = version("failsafe-gateway")
LONGEST_WAIT_S = 30
POLL_EVERY_S = 0.1
log = logging.getLogger(__name__)
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "parameters", "schedule_policy")


class _HungUp(Exception):
    """The caller is gone: there is nobody to answer."""


class _Ended(Exception):
    """The request is over before a decision; carries its reply."""

    def __init__(self, end: Rejection | InvalidRequest, what: str = "", **headers: str) -> None:
        super().__init__(str(end))
        self.end, self.what, self.headers = end, what, headers


class _Request(NamedTuple):
    """One HTTP request: its route in parts, and its headers by lower-case name, as ASGI gives them."""

    method: str
    parts: tuple[str, ...]
    headers: Mapping[bytes, bytes]
    address: str
    receive: Receive

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> _Request:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            headers = _joined(scope["headers"])
        client = scope.get("client")
        parts = tuple(part for part in scope["path"].split("/") if part)
        return cls(scope["method"], parts, headers, client[0] if client else "", receive)

    def header(self, name: bytes) -> str | None:
        """The value of a header, by its lower-case name."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def key(self) -> str | None:
        scheme, _, token = (self.header(b"authorization") or "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        return self.header(b"x-api-key")

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises _Ended if it is too large, too slow or encoded."""
        if (self.header(b"content-encoding") or "identity").lower() != "identity":
            raise _Ended(Rejection.UNSUPPORTED, "Content-Encoding must be identity")
        if _natural(self.header(b"content-length") or "0", limit + 1) > limit:
            raise _Ended(Rejection.TOO_LARGE, f"the body may have at most {limit} bytes")
        try:
            return await within(self._body(limit), now_s() + BODY_TIMEOUT_S)
        except TimeoutError:
            raise _Ended(Rejection.TOO_SLOW) from None

    async def _body(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise _HungUp
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _Ended(Rejection.TOO_LARGE, f"the body may have at most {limit} bytes")
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def gone(self) -> None:
        """Returns when the caller hangs up; call it once the body is read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class DataPlane:
    """The ASGI application of port 8080."""

    def __init__(self, gateway: Gateway, siblings: Siblings) -> None:
        self.gateway = gateway
        self.siblings = siblings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        request = _Request.of(scope, receive)
        decision_id = secrets.token_hex(12)
        try:
            reply = await self._route(request, decision_id)
        except _Ended as over:
            stamp = self._stamp(decision_id)
            headers = {name.replace("_", "-"): value for name, value in over.headers.items()}
            reply = reply_end(over.end, stamp, what=over.what, headers=headers)
        except _HungUp:
            return
        await _send(send, reply)

    def _stamp(self, decision_id: str) -> Stamp:
        loaded = self.gateway.loaded
        return Stamp(loaded.tag, loaded.policy.mode, decision_id)

    async def _route(self, request: _Request, decision_id: str) -> Reply:
        match request.parts:
            case ("v2",):
                _only(request, "GET")
                return _json(metadata.render_server("failsafe-gateway", VERSION, EXTENSIONS))
            case ("v2", "health", "live" | "ready"):
                _only(request, "GET")
                return _json(metadata.render_health(live=True, ready=True))
            case ("v2", "models", model, "versions", number, *rest):
                return await self._model(request, decision_id, model, number, tuple(rest))
            case ("v2", "models", model, *rest):
                return await self._model(request, decision_id, model, None, tuple(rest))
            case ("decisions", id_):
                _only(request, "GET")
                return await self._decision(self._caller(request), id_)
            case ("reviews", id_):
                _only(request, "GET")
                return await self._review(self._caller(request), id_)
            case _:
                raise _Ended(Rejection.NOT_FOUND)

    def _caller(self, request: _Request, scope: str = "infer") -> Caller:
        caller = self.gateway.callers.identify(request.key, request.address)
        if caller is None:
            raise _Ended(Rejection.UNAUTHENTICATED)
        if scope not in caller.scopes:
            raise _Ended(Rejection.FORBIDDEN)
        return caller

    async def _model(
        self, request: _Request, decision_id: str, model: str, number: str | None, rest: tuple[str, ...]
    ) -> Reply:
        caller = self._caller(request)
        contract = self.gateway.loaded.contract
        if model != contract.model or number not in (None, contract.version):
            return reply_unknown_model(
                model if number is None else f"{model}/{number}", self._stamp(decision_id)
            )
        match rest:
            case ("infer",):
                _only(request, "POST")
                return await self._infer(request, caller, decision_id)
            case ():
                body = metadata.render_model(contract)
            case ("ready",):
                body = metadata.render_model_ready(contract, ready=True)
            case ("config",):
                body = metadata.render_config(contract)
            case _:
                raise _Ended(Rejection.NOT_FOUND)
        _only(request, "GET")
        return _json(body)

    async def _infer(self, request: _Request, caller: Caller, decision_id: str) -> Reply:
        received_s, start_s = time.time(), time.perf_counter()
        loaded = self.gateway.loaded
        body = await request.body(min(MAX_BODY_BYTES, loaded.contract.body_limit_bytes))
        try:
            asked = parse_infer(
                body,
                parse_header_length(request.header(b"inference-header-content-length")),
                loaded.contract,
            )
            deadline_s = now_s() + _deadline(request, asked, loaded.policy.deadline_s)
        except InvalidRequest as error:
            raise _Ended(error) from None
        ids = (decision_id,) if asked.rows == 1 else tuple(f"{decision_id}.{i}" for i in range(asked.rows))
        principals = (caller.principal,) * asked.rows
        batch = Batch(ids, principals, asked.inputs, (deadline_s,) * asked.rows)
        decisions = await self.gateway.decide(batch)
        elapsed_s = time.perf_counter() - start_s
        policy = decisions[0].policy or loaded.tag
        judged = loaded if policy == loaded.tag else self.gateway.loaded  # a reload may have come between
        stamp = Stamp(policy, judged.policy.mode, decision_id)
        told = tuple(decisions)
        self.gateway.record(
            Record(decision_id, caller.principal, policy, stamp.mode, received_s, elapsed_s, told)
        )
        prefer = (request.header(b"prefer") or "").lower()
        if wait_s := _wait_s(prefer):
            decisions = await self._or_hung_up(request, self._wait_for_people(decisions, wait_s))
        return reply_infer(
            loaded.contract,
            asked,
            decisions,
            stamp,
            tier=loaded.tier(caller.tier),
            prefer_async="respond-async" in prefer,
        )

    async def _or_hung_up(self, request: _Request, waiting: Coroutine[Any, Any, T]) -> T:
        """What is waited for, unless the caller goes first: raises _HungUp, and nobody waits any more."""
        work, gone = asyncio.ensure_future(waiting), asyncio.ensure_future(request.gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _HungUp
            return work.result()
        finally:
            work.cancel()
            gone.cancel()

    async def _wait_for_people(self, decisions: list[Decision], wait_s: float) -> list[Decision]:
        """The decisions with people's answers in place of deferrals, as far as they come within `wait_s`."""
        review, contract = self.gateway.review, self.gateway.loaded.contract
        until_s = now_s() + wait_s
        settled = list(decisions)
        while isinstance(review, People) and now_s() < until_s:
            open_rows = [i for i, d in enumerate(settled) if isinstance(d.outcome, Deferred)]
            if not open_rows:
                break
            await asyncio.sleep(POLL_EVERY_S)
            for i in open_rows:
                try:
                    record = await review.queue.find(settled[i].id)
                except Exception:
                    log.exception("the review queue cannot be read; the deferral stands")
                    return settled
                outcome = outcome_of(record, contract) if record else None
                if outcome is not None:
                    settled[i] = Decision(settled[i].id, outcome, settled[i].findings, settled[i].policy)
        return settled

    async def _decision(self, caller: Caller, id_: str) -> Reply:
        """The caller's own decision, coarse: scores are read on the administration port."""
        rows = await rows_anywhere(self.gateway.audit, self.siblings, id_)
        if not rows or rows[0]["principal"] != caller.principal:
            raise _Ended(Rejection.NOT_FOUND, "no such decision of yours is kept")
        told = {name: rows[0][name] for name in ("policy", "mode")}
        told["rows"] = [{name: row.get(name) for name in ("id", "outcome", "reason", "by")} for row in rows]
        return _json(orjson.dumps({"id": id_, "received": rows[0]["t"], **told}))

    async def _review(self, caller: Caller, case_id: str) -> Reply:
        """How the caller's deferred row stands; a person's answer has the form of the model's outputs."""
        review, contract = self.gateway.review, self.gateway.loaded.contract
        try:
            record = await review.queue.find(case_id) if isinstance(review, People) else None
        except Exception:
            log.exception("the review queue cannot be read")
            return reply_end(Refused(Reason.UNAVAILABLE), self._stamp(case_id))
        if record is None or record.principal != caller.principal:
            raise _Ended(Rejection.NOT_FOUND, "no such review of yours")
        outcome = outcome_of(record, contract)
        told: dict[str, Any] = {"id": case_id, "state": "waiting", "expires": record.expires_s}
        if outcome is not None:
            told["state"] = "expired" if record.state is CaseState.EXPIRED else "decided"
            asked = InferRequest(None, {}, 1, contract.everything[False])
            tier = self.gateway.loaded.tier(caller.tier)
            reply = reply_infer(
                contract, asked, [Decision(case_id, outcome)], self._stamp(case_id), tier=tier
            )
            told["answer"] = orjson.loads(reply.body)
        return _json(orjson.dumps(told))


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers of which some come more than once: one value each, as RFC 9110 joins them."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _only(request: _Request, method: str) -> None:
    if request.method != method:
        raise _Ended(Rejection.METHOD_NOT_ALLOWED, allow=method)


def _deadline(request: _Request, asked: InferRequest, longest_s: float) -> float:
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


def _json(body: bytes) -> Reply:
    return Reply(200, {"content-type": JSON}, body)


async def _send(send: Send, reply: Reply) -> None:
    headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
