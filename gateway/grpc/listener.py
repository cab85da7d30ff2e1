"""The data plane over gRPC: `inference.GRPCInferenceService` and `grpc.health.v1.Health`, in the replica.

The same steps as over HTTP (`plane.py`), with what clients of gRPC expect: status codes, the deadline of the
call, trailing metadata that says how it ended. What is served, and to whom, stands in `grpc_methods.py`.

Every method is served as one that may send a stream, of which one message is read. So the caller is known
before any of its message is taken in, and a message that does not come in time ends the call; a plain unary
handler would be called only once the whole message has arrived. Clients cannot tell: the bytes are the same.

grpc itself (its C core) holds the limits below this: headers, message size also after decompression, streams
of a connection, connections. What it refuses by itself carries no trailing metadata of ours. Messages may
come compressed; answers leave as they are, since every client says what it could read, none what it wants.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc

from gateway.access.callers import Caller
from gateway.access.proxies import Proxies, host_of
from gateway.access.tls import Tls
from gateway.core.decision import Reason, Refused
from gateway.core.errors import InvalidRequest
from gateway.grpc.methods import METHODS, Asked, Method, Told, ended
from gateway.listener.limits import BODY_TIMEOUT_S, Limits
from gateway.listener.messages import bearer_token
from gateway.protocol.contract import MAX_BODY_BYTES
from gateway.protocol.endings import Rejection
from gateway.serving.data_plane import ANYBODY, DataPlane, RequestRejected

CORE_BYTES = MAX_BODY_BYTES + 2**21
"""A little more than we take: what is only a little too large is refused in our own words."""
STREAMS = 256
"""So many calls of one connection at a time."""
LIMITS = Limits()
log = logging.getLogger(__name__)


class Listener(grpc.GenericRpcHandler):  # type: ignore[misc]
    """What stands behind one grpc server."""

    def __init__(self, plane: DataPlane, proxies: Proxies | None) -> None:
        self._plane, self._proxies = plane, proxies

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Whatever is asked is answered here: what is not in the table, as unsupported."""
        method = METHODS.get(details.method)
        headers = {name: value for name, value in details.invocation_metadata if isinstance(value, str)}

        async def handle(_: Any, context: grpc.aio.ServicerContext) -> bytes | None:
            told = await self._total(method, headers, context)
            if told.message is not None:
                context.set_trailing_metadata(told.trailers)
                return told.message.SerializeToString()  # type: ignore[no-any-return]
            await context.abort(grpc.StatusCode[told.code], told.words, told.trailers)
            return None

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _total(
        self, method: Method | None, headers: dict[str, str], context: grpc.aio.ServicerContext
    ) -> Told:
        """The answer; whatever breaks ends as unavailable, not as a traceback."""
        plane = self._plane
        id_ = plane.ids.new()
        try:
            if method is None:
                raise RequestRejected(Rejection.UNSUPPORTED)
            address = self._address(headers, context)
            if method.needs is ANYBODY:
                caller = Caller(f"anyone@{address}")
            else:
                caller = plane.identify(_key(headers), address, method.needs)
            read = partial(_read, context, plane)
            with plane.acquire_slot(caller):  # before its message is read
                return await method.answer(Asked(plane, caller, id_, headers, read, context.time_remaining))
        except RequestRejected as over:
            return ended(over.end, plane.stamp(id_), over.what)
        except InvalidRequest as error:
            return ended(error, plane.stamp(id_))
        except Exception:
            log.exception("a call could not be answered: this is a defect of the gateway")
            return ended(Refused(Reason.UNAVAILABLE), plane.stamp(id_))

    def _address(self, headers: dict[str, str], context: grpc.aio.ServicerContext) -> str:
        """Of the client: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`."""
        kind, _, place = unquote(context.peer()).partition(":")
        peer = host_of(place) if kind in ("ipv4", "ipv6") else ""
        if self._proxies is None:
            return peer
        forwarded = headers.get("x-forwarded-for")
        return self._proxies.client(peer, None if forwarded is None else forwarded.encode("latin-1"))


async def _read(context: grpc.aio.ServicerContext, plane: DataPlane) -> bytes:
    """The message of a call. Raises Over if it does not come in time, or is too large."""
    limit = plane.gateway.loaded.contract.body_limit_bytes
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await context.read()
    except TimeoutError:
        raise RequestRejected(Rejection.TOO_SLOW) from None
    if message is grpc.aio.EOF:
        raise RequestRejected(Rejection.INVALID, "a call without a message")
    if len(message) > limit:
        raise RequestRejected(Rejection.TOO_LARGE, f"a message may have at most {limit} bytes")
    return bytes(message)


def _key(headers: dict[str, str]) -> str | None:
    token = bearer_token(headers.get("authorization", ""))
    if token is not None:
        return token
    key = headers.get("x-api-key")
    return None if key is None else key.strip()


def grpc_server(
    listener: Listener, place: str, max_connections: int, max_calls: int, tls: Tls | None = None
) -> grpc.aio.Server:
    """A server that will listen there, beside others (SO_REUSEPORT). Raises RuntimeError if it cannot."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", CORE_BYTES),
            ("grpc.max_metadata_size", LIMITS.head_bytes),
            ("grpc.absolute_max_metadata_size", LIMITS.head_bytes),
            ("grpc.max_concurrent_streams", STREAMS),
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.max_connection_idle_ms", int(LIMITS.idle_s * 1000)),
            ("grpc.server_handshake_timeout_ms", int(LIMITS.head_s * 1000)),
        ],
        maximum_concurrent_rpcs=max_calls,
    )
    server.add_generic_rpc_handlers((listener,))
    if tls is None:
        server.add_insecure_port(place)
    else:
        server.add_secure_port(place, grpc.ssl_server_credentials([(tls.key, tls.certificate)]))
    return server
