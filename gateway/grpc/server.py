"""The data plane over gRPC: `inference.GRPCInferenceService` and `grpc.health.v1.Health`, in the replica.

The steps are those of HTTP (`serving/data_plane.py`), with what clients of gRPC expect: status codes, the
call's deadline, trailing metadata that says how the call ended. The methods are listed in `methods.py`.

Every method is served as a client stream of which one message is read. So the caller is identified before its
message is read, and a message that does not arrive in time ends the call; the handler of a unary method would
be called only with the whole message. The bytes on the wire are the same.

grpc itself (its C core) enforces the limits below this: headers, message size also after decompression,
streams of a connection. What it refuses by itself has no trailing metadata of the gateway. Connections are
bounded before it (`relay.py`). Messages may be compressed; replies are not, since clients declare what they
can read and not what they want.

No browser can make a call: it cannot send `te: trailers`, which grpc requires. So the authority of a call is
not compared with our hosts (grpc does not tell it either), but what only browsers send is refused.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from errno import ECONNREFUSED
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from gateway.access.callers import Caller
from gateway.access.credentials import InvalidCredential, sent_key
from gateway.access.proxies import Proxies, is_forwarded
from gateway.access.site import Site
from gateway.access.tls import Tls
from gateway.core.decision import Reason, Refused
from gateway.core.errors import InvalidRequest
from gateway.grpc import reflection
from gateway.grpc.bounds import MAX_OTHER_BYTES
from gateway.grpc.methods import METHODS, CallReply, Method, MethodCall, error_reply, message_too_large
from gateway.grpc.relay import Relay
from gateway.listener.limits import BODY_TIMEOUT_S, Limits
from gateway.protocol.contract import MAX_BODY_BYTES
from gateway.protocol.endings import Rejection, Stamp
from gateway.serving.data_plane import METADATA_SCOPES, PUBLIC, DataPlane, RequestRejected
from gateway.serving.unix_path import unix_address

MAX_RECEIVED_BYTES = MAX_BODY_BYTES + 2**21
"""A little more than the largest message, so that a slightly larger one gets the gateway's own error."""
MAX_STREAMS = 256
"""Concurrent calls of one connection."""
SUFFIX, STALE_S = ".grpc", 60.0
"""Of the names of unix sockets, and how old one is that may be left over."""
MIN_PING_S = 0.5
"""The shortest time between two pings of a client: those that want one a second are a little early at times.
After the third that comes sooner, with no reply in between, grpc ends the connection."""
LIMITS = Limits()
log = logging.getLogger(__name__)


class GrpcHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handles every call of one grpc server.

    proxies: trusted ones in front of it; relay: through which its connections come; site: what browsers send
    is refused, but for the origins that it allows.
    """

    def __init__(self, plane: DataPlane, proxies: Proxies | None, relay: Relay, site: Site) -> None:
        self._plane, self._proxies, self._relay, self._site = plane, proxies, relay, site

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of one call; a method that is not in the table is unsupported."""
        headers = _headers(details.invocation_metadata)
        if details.method in reflection.METHODS:
            return grpc.stream_stream_rpc_method_handler(partial(self._reflect, headers))
        method = METHODS.get(details.method)

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
        plane, id_ = self._plane, self._plane.ids.new()
        try:
            if method is None:
                raise RequestRejected(Rejection.UNSUPPORTED)
            caller, under_way = self._identify(method.scopes, headers, context)
            read = partial(_read, context, plane)
            with plane.acquire_slot(caller), under_way:  # before its message is read
                call = MethodCall(plane, caller, id_, headers, read, context.time_remaining)
                return await method.handler(call)
        except (RequestRejected, InvalidRequest) as error:
            stamp = error.stamp if isinstance(error, RequestRejected) else None
            return _refusal(error, stamp or plane.stamp(id_))
        except Exception:
            log.exception("a call could not be answered: this is a defect of the gateway")
            return error_reply(Refused(Reason.UNAVAILABLE), plane.stamp(id_))

    async def _reflect(
        self, headers: dict[str, str], _: Any, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        """Answers the questions of one call of reflection. It is not in the table: it reads many messages."""
        plane = self._plane
        try:
            caller, under_way = self._identify(METADATA_SCOPES, headers, context)
            with plane.acquire_slot(caller), under_way:
                async for answer in reflection.answers(partial(_next_message, context, MAX_OTHER_BYTES)):
                    yield answer
            return
        except (RequestRejected, InvalidRequest) as error:
            reply = _refusal(error, plane.stamp(plane.ids.new()))
        await context.abort(grpc.StatusCode[reply.status], reply.error, reply.trailers)

    def _identify(
        self, scopes: frozenset[str] | None, headers: dict[str, str], context: grpc.aio.ServicerContext
    ) -> tuple[Caller, AbstractContextManager[None]]:
        """The caller, and what marks its call as under way on its connection. Raises RequestRejected."""
        if "origin" in headers or "sec-fetch-site" in headers:
            refusal = self._site.refuse({name.encode(): value.encode() for name, value in headers.items()})
            if refusal is not None:
                raise RequestRejected(refusal.end, refusal.error)
        connection = self._relay.find(context.peer())
        address = self._address("" if connection is None else connection.address, headers)
        if scopes is PUBLIC:
            return Caller(f"unidentified@{address}"), nullcontext()
        caller = self._identify_sender(headers, address, scopes)
        return caller, nullcontext() if connection is None else connection.under_way()

    def _identify_sender(self, headers: dict[str, str], address: str, scopes: frozenset[str]) -> Caller:
        """The caller of a method that needs one. Raises RequestRejected."""
        try:
            key = sent_key(headers.get("authorization"), headers.get("x-api-key"))
        except InvalidCredential as error:
            raise RequestRejected(Rejection.UNAUTHENTICATED, str(error)) from None
        unproxied = key is None and not is_forwarded([name.encode() for name in headers])
        return self._plane.identify(key, address if unproxied else "", scopes)

    def _address(self, peer: str, headers: dict[str, str]) -> str:
        """The client's address: the peer's, or what trusted proxies say."""
        if self._proxies is None:
            return peer
        forwarded = headers.get("x-forwarded-for")
        sent = None if forwarded is None else forwarded.encode("latin-1", "replace")
        return self._proxies.client(peer, sent)


def _refusal(error: RequestRejected | InvalidRequest, stamp: Stamp) -> CallReply:
    if isinstance(error, RequestRejected):
        return error_reply(error.end, stamp, error.error)
    return error_reply(error, stamp)


async def _read(context: grpc.aio.ServicerContext, plane: DataPlane) -> bytes:
    """The message of a call. Raises RequestRejected if it is late, or too large for every model."""
    gateways = plane.repository.gateways.values()
    limit = max((one.loaded.contract.body_limit_bytes for one in gateways), default=MAX_OTHER_BYTES)
    message = await _next_message(context, limit)
    if message is None:
        raise RequestRejected(Rejection.INVALID, "a call without a message")
    return message


async def _next_message(context: grpc.aio.ServicerContext, limit_bytes: int) -> bytes | None:
    """The next message of a call; None after the last. Raises RequestRejected if it is late or too large."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await context.read()
    except TimeoutError:
        raise RequestRejected(Rejection.TOO_SLOW) from None
    if message is grpc.aio.EOF:
        return None
    if len(message) > limit_bytes:
        raise message_too_large(limit_bytes)
    return bytes(message)


def _headers(metadata: Sequence[tuple[str, str | bytes]]) -> dict[str, str]:
    """A call's metadata by name, repeated ones joined as HTTP joins them. A binary one has an empty value."""
    headers: dict[str, str] = {}
    for name, value in metadata:
        text = value if isinstance(value, str) else ""
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


class GrpcListener:
    """The gRPC port: a relay on its socket, and grpc's server behind it on a unix socket at `path`.

    max_calls: at the same time. Raises OSError or RuntimeError where the unix socket cannot be made.
    """

    def __init__(
        self,
        plane: DataPlane,
        path: Path,
        limits: Limits = LIMITS,
        *,
        site: Site,
        max_calls: int,
        proxies: Proxies | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._relay = Relay(limits, proxies, path, tls=tls is not None)
        self._server = _server(GrpcHandler(plane, proxies, self._relay, site), limits, max_calls)
        self._path, self._tls = path, tls

    async def start(self, listening: socket.socket, backlog: int = 2048) -> None:
        """Begins to accept. To be called, like the constructor, on the loop that serves."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_stale(self._path.parent)
        with unix_address(self._path) as address:
            uri = "unix:" + address.replace("%", "%25")
            if self._tls is None:
                self._server.add_insecure_port(uri)
            else:
                pair = (self._tls.key, self._tls.certificate)
                self._server.add_secure_port(uri, grpc.ssl_server_credentials([pair]))
        self._path.chmod(0o600)
        await self._server.start()
        await self._relay.start(listening, backlog)

    async def stop(self, grace_s: float) -> None:
        """Stops accepting; returns when the calls under way have ended, at the latest after `grace_s`."""
        await asyncio.gather(self._relay.stop(grace_s), self._server.stop(grace_s))
        self._path.unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Removes the unix sockets of listeners that were killed. One that is just starting refuses too."""
    for path in folder.glob(f"*{SUFFIX}"):
        with (
            suppress(FileNotFoundError),
            socket.socket(socket.AF_UNIX) as probe,
            unix_address(path) as address,
        ):
            if time.time() - path.stat().st_mtime > STALE_S and probe.connect_ex(address) == ECONNREFUSED:
                path.unlink()


def _server(handler: GrpcHandler, limits: Limits, max_calls: int) -> grpc.aio.Server:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
            ("grpc.max_metadata_size", limits.head_bytes),
            ("grpc.absolute_max_metadata_size", limits.head_bytes),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.max_connection_idle_ms", int(limits.idle_s * 1000)),
            ("grpc.server_handshake_timeout_ms", int(limits.head_s * 1000)),
            ("grpc.http2.min_ping_interval_without_data_ms", int(MIN_PING_S * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
        maximum_concurrent_rpcs=max_calls,
    )
    server.add_generic_rpc_handlers((handler,))
    return server
