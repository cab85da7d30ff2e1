"""The data plane over gRPC: `inference.GRPCInferenceService` and `grpc.health.v1.Health`, in the replica.

The steps are those of HTTP (`serving/data_plane.py`), with what clients of gRPC expect: status codes, the
call's deadline, trailing metadata that says how the call ended. The methods are listed in `methods.py`.

Every method is served as a client stream of which one message is read. So the caller is identified before its
message is read, and a message that does not arrive in time ends the call; the handler of a unary method would
be called only with the whole message. The bytes on the wire are the same.

grpc itself (its C core) enforces the limits below this: headers, message size also after decompression,
streams of a connection, connections. What it refuses by itself has no trailing metadata of the gateway.
Messages may be compressed; replies are not, since clients declare what they can read and not what they want.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc

from gateway.access.callers import Caller
from gateway.access.credentials import InvalidCredential, sent_key
from gateway.access.proxies import Proxies, host_of, is_forwarded
from gateway.access.tls import Tls
from gateway.addresses import peer_address
from gateway.core.decision import Reason, Refused
from gateway.core.errors import InvalidRequest
from gateway.grpc.bounds import MAX_OTHER_BYTES
from gateway.grpc.methods import METHODS, CallReply, Method, MethodCall, error_reply, message_too_large
from gateway.listener.limits import BODY_TIMEOUT_S, Limits
from gateway.protocol.contract import MAX_BODY_BYTES
from gateway.protocol.endings import Rejection
from gateway.serving.data_plane import PUBLIC, DataPlane, RequestRejected

MAX_RECEIVED_BYTES = MAX_BODY_BYTES + 2**21
"""A little more than the largest message, so that a slightly larger one gets the gateway's own error."""
MAX_STREAMS = 256
"""Concurrent calls of one connection."""
LIMITS = Limits()
log = logging.getLogger(__name__)


class GrpcHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handles every call of one grpc server. proxies: trusted ones in front of it."""

    def __init__(self, plane: DataPlane, proxies: Proxies | None) -> None:
        self._plane, self._proxies = plane, proxies

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of one call; a method that is not in the table is unsupported."""
        method = METHODS.get(details.method)
        headers = _headers(details.invocation_metadata)

        async def handle(_: Any, context: grpc.aio.ServicerContext) -> bytes | None:
            reply = await self._reply(method, headers, context)
            if reply.message is not None:
                context.set_trailing_metadata(reply.trailers)
                return reply.message.SerializeToString()  # type: ignore[no-any-return]
            await context.abort(grpc.StatusCode[reply.status], reply.error, reply.trailers)
            return None

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _reply(
        self, method: Method | None, headers: dict[str, str], context: grpc.aio.ServicerContext
    ) -> CallReply:
        """The reply to one call; an unexpected exception becomes the ending `unavailable`."""
        plane = self._plane
        id_ = plane.ids.new()
        try:
            if method is None:
                raise RequestRejected(Rejection.UNSUPPORTED)
            address = self._address(headers, context)
            if method.scopes is PUBLIC:
                caller = Caller(f"unidentified@{address}")
            else:
                caller = self._identify(headers, address, method.scopes)
            read = partial(_read, context, plane)
            with plane.acquire_slot(caller):  # before its message is read
                call = MethodCall(plane, caller, id_, headers, read, context.time_remaining)
                return await method.handler(call)
        except RequestRejected as rejected:
            return error_reply(rejected.end, plane.stamp(id_), rejected.error)
        except InvalidRequest as error:
            return error_reply(error, plane.stamp(id_))
        except Exception:
            log.exception("a call could not be answered: this is a defect of the gateway")
            return error_reply(Refused(Reason.UNAVAILABLE), plane.stamp(id_))

    def _identify(self, headers: dict[str, str], address: str, scopes: frozenset[str]) -> Caller:
        """The caller of a method that needs one. Raises RequestRejected."""
        try:
            key = sent_key(headers.get("authorization"), headers.get("x-api-key"))
        except InvalidCredential as error:
            raise RequestRejected(Rejection.UNAUTHENTICATED, str(error)) from None
        unproxied = key is None and not is_forwarded([name.encode() for name in headers])
        return self._plane.identify(key, address if unproxied else "", scopes)

    def _address(self, headers: dict[str, str], context: grpc.aio.ServicerContext) -> str:
        """The client's address, from `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000` or the trusted proxies."""
        kind, _, host_port = unquote(context.peer()).partition(":")
        peer = peer_address(host_of(host_port)) if kind in ("ipv4", "ipv6") else ""
        if self._proxies is None:
            return peer
        forwarded = headers.get("x-forwarded-for")
        sent = None if forwarded is None else forwarded.encode("latin-1", "replace")
        return self._proxies.client(peer, sent)


async def _read(context: grpc.aio.ServicerContext, plane: DataPlane) -> bytes:
    """The message of a call. Raises RequestRejected if it is late, or too large for every model."""
    gateways = plane.repository.gateways.values()
    limit = max((one.loaded.contract.body_limit_bytes for one in gateways), default=MAX_OTHER_BYTES)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await context.read()
    except TimeoutError:
        raise RequestRejected(Rejection.TOO_SLOW) from None
    if message is grpc.aio.EOF:
        raise RequestRejected(Rejection.INVALID, "a call without a message")
    if len(message) > limit:
        raise message_too_large(limit)
    return bytes(message)


def _headers(metadata: Sequence[tuple[str, str | bytes]]) -> dict[str, str]:
    """A call's metadata by name, repeated ones joined as HTTP joins them. A binary one has an empty value."""
    headers: dict[str, str] = {}
    for name, value in metadata:
        text = value if isinstance(value, str) else ""
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def grpc_server(
    handler: GrpcHandler, address: str, max_connections: int, max_calls: int, tls: Tls | None = None
) -> grpc.aio.Server:
    """A server that listens on an address once started, beside others (SO_REUSEPORT). Raises RuntimeError."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
            ("grpc.max_metadata_size", LIMITS.head_bytes),
            ("grpc.absolute_max_metadata_size", LIMITS.head_bytes),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.max_connection_idle_ms", int(LIMITS.idle_s * 1000)),
            ("grpc.server_handshake_timeout_ms", int(LIMITS.head_s * 1000)),
        ],
        maximum_concurrent_rpcs=max_calls,
    )
    server.add_generic_rpc_handlers((handler,))
    if tls is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, grpc.ssl_server_credentials([(tls.key, tls.certificate)]))
    return server
