"""Handlers that reply with metadata, health or statistics, and those of routes that are never served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from gateway.access.in_flight import RETRY_S
from gateway.core.decision import Reason, Refused
from gateway.http.replies import reply_json
from gateway.http.routes import RoutedRequest, RouteHandler
from gateway.listener.messages import Admitted, Reply
from gateway.protocol import metadata
from gateway.protocol.contract import Contract
from gateway.protocol.endings import Rejection
from gateway.serving.data_plane import RequestRejected

INDEX_BODY_BYTES = 64 * 1024


def reply_document(document: Callable[[RoutedRequest], Any]) -> RouteHandler:
    """A handler that replies with a JSON document."""
    return lambda routed: reply_json(orjson.dumps(document(routed)))


def _of_contract(document: Callable[[Contract], Any]) -> RouteHandler:
    """A handler that replies with a document about the model in the path."""
    return reply_document(lambda routed: document(routed.contract()))


def _statistics(routed: RoutedRequest) -> Any:
    gateways = [routed.gateway()] if routed.path else routed.plane.usable(routed.caller)
    return metadata.model_statistics([(one.loaded.contract, one.statistics) for one in gateways])


def _live(routed: RoutedRequest) -> Any:
    return metadata.health(ready=not routed.plane.why_not_ready())


def _ready(routed: RoutedRequest) -> Any:
    """Ready if at least one model is: whether a certain one is, its own readiness says."""
    _require_ready(routed.plane.why_not_ready())
    return metadata.health()


def _model_ready(routed: RoutedRequest) -> Any:
    _require_ready(routed.plane.why_not_ready(routed.gateway()))
    return metadata.model_ready(routed.contract())


def _require_ready(why_not: str) -> None:
    if why_not:
        raise RequestRejected(Refused(Reason.UNAVAILABLE, RETRY_S), why_not)


server = reply_document(lambda _: metadata.server())
live = reply_document(_live)
ready = reply_document(_ready)
statistics = reply_document(_statistics)
model = _of_contract(metadata.model)
model_ready = reply_document(_model_ready)
model_config = _of_contract(metadata.config)


def repository_index(routed: RoutedRequest) -> Admitted:
    """Lists the models that the caller may use; `{"ready": true}` asks for ready ones only."""

    async def answer(body: bytes) -> Reply:
        return reply_json(orjson.dumps(routed.plane.index(routed.caller, _ready_only(body))))

    return Admitted(INDEX_BODY_BYTES, answer)


def _ready_only(body: bytes) -> bool:
    """Whether the body asks for ready models only; any other text, or none, asks for all."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(asked, dict) and asked.get("ready") is True


def forbidden(_: RoutedRequest) -> Reply:
    """For routes of administration, which is not on this port."""
    raise RequestRejected(Rejection.FORBIDDEN)


def unsupported(_: RoutedRequest) -> Reply:
    """For routes of extensions that this gateway does not have."""
    raise RequestRejected(Rejection.UNSUPPORTED)
