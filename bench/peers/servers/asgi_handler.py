"""A handler of the gateway's listener as an ASGI application, which Ray Serve's proxy can call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from gateway.listener.limits import BODY_TIMEOUT_S
from gateway.listener.messages import Admitted, Fault, Handler, Reply, Request, parts_of

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AsgiHandler:
    """Calls a handler as the listener does: with the head first, and with the body once that is admitted."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        admitted = self._handler.admit(_request(scope, receive))
        reply = admitted if isinstance(admitted, Reply) else await self._answer(admitted, receive)
        if reply is not None:
            await _send(send, reply)

    async def _answer(self, admitted: Admitted, receive: Receive) -> Reply | None:
        """The reply once the body has come; None if the client hangs up first."""
        body = bytearray()
        more = admitted.body_limit > 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > admitted.body_limit:
                        return self._handler.refuse(Fault.TOO_LARGE)
                    more = message.get("more_body", False)
        except TimeoutError:
            return self._handler.refuse(Fault.TOO_SLOW)
        return await admitted.answer(bytes(body))


def _request(scope: Scope, receive: Receive) -> Request:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    client = scope.get("client")
    address = client[0] if client else ""
    return Request(
        scope["method"], scope["raw_path"], parts_of(scope["path"]), _by_name(scope["headers"]), address, gone
    )


def _by_name(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name, repeated ones joined as RFC 9110 says."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


async def _send(send: Send, reply: Reply) -> None:
    lines = [line.partition(b": ") for line in reply.headers.split(b"\r\n") if line]
    headers = [*((name, value) for name, _, value in lines), (b"content-length", b"%d" % len(reply.body))]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
