"""Handlers that reply with metadata, health or statistics, and those of routes that are never served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

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
    gateway = routed.plane.gateway
    contract = routed.contract() if routed.path else gateway.loaded.contract
    return metadata.model_statistics(contract, gateway.statistics)


server = reply_document(lambda _: metadata.server())
health = reply_document(lambda _: metadata.health())
statistics = reply_document(_statistics)
model = _of_contract(metadata.model)
model_ready = _of_contract(metadata.model_ready)
model_config = _of_contract(metadata.config)


def repository_index(routed: RoutedRequest) -> Admitted:
    """Lists the models. The body may ask for ready ones only; since all are, it is not parsed."""
    contract = routed.plane.gateway.loaded.contract

    async def answer(_: bytes) -> Reply:
        return reply_json(orjson.dumps(metadata.index(contract)))

    return Admitted(INDEX_BODY_BYTES, answer)


def forbidden(_: RoutedRequest) -> Reply:
    """For routes of administration, which is not on this port."""
    raise RequestRejected(Rejection.FORBIDDEN)


def unsupported(_: RoutedRequest) -> Reply:
    """For routes of extensions that this gateway does not have."""
    raise RequestRejected(Rejection.UNSUPPORTED)
