"""The administration plane over HTTP, as the listener calls it: a request is a call of the ASGI application.

    admit(head) ── 400, 403, 421: not addressed to us, or sent for another site's page (`access.site`)
                └─ the body is read ── the application ── Reply

The application gets each request whole, and its reply is sent whole: no page here is large. So the limits on
connections, heads, bodies and time are those of the listener, as on the data plane.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from gateway.access.site import Site
from gateway.admin.pages import json_reply
from gateway.admin.require_login import MAX_BODY_BYTES
from gateway.listener.limits import Limits
from gateway.listener.messages import Admitted, Fault, Reply, Request
from gateway.protocol.endings import STATUSES

LIMITS = Limits(connections=64, connections_per_address=16, spare_connections=16)
BACKLOG = 64
"""Connections that the system holds until they are accepted: they take no open file of ours."""
UNIX_LIMITS = Limits(connections=64, spare_connections=16)
"""Of the socket for other replicas of this machine, of which there are at most 64."""
FILES = sum(limits.connections + limits.spare_connections for limits in (LIMITS, UNIX_LIMITS)) + BACKLOG
"""Open files that administration takes at most, with those that are accepted and closed at once."""
FAULTS = {
    Fault.INVALID: (400, "this is no request of HTTP/1.1"),
    Fault.TOO_LARGE: (413, "the request is too large"),
    Fault.TOO_SLOW: (408, "the request did not arrive in time"),
    Fault.UNSUPPORTED: (501, "this is not supported"),
    Fault.UNMET_EXPECTATION: (417, "what the request expects cannot be met"),
    Fault.HEAD_TOO_LARGE: (431, "the headers are too large or too many"),
    Fault.UNAVAILABLE: (503, "there are too many connections: try again later"),
}
_BY_SERVER = frozenset({b"content-length", b"transfer-encoding", b"connection"})
log = logging.getLogger(__name__)


class AdminHandler:
    """The `Handler` of a listener of administration.

    site: which requests are addressed to it; None: all, on the socket for replicas. scheme: of its URLs.
    """

    def __init__(self, app: ASGIApp, site: Site | None, scheme: str) -> None:
        self._app, self._site, self._scheme = app, site, scheme

    def admit(self, request: Request) -> Admitted | Reply:
        """Refuses what is not addressed to us; else the application answers, which authenticates it."""
        if self._site is not None and (refusal := self._site.refuse(request.headers)) is not None:
            return _error(STATUSES[refusal.end].http, refusal.error)
        scope = _scope(request, self._scheme)
        return Admitted(MAX_BODY_BYTES, lambda body: _Call(request, body).reply_of(self._app, scope))

    def refuse(self, fault: Fault, what: str = "") -> Reply:
        """The reply to what the listener refuses."""
        status, text = FAULTS[fault]
        return _error(status, what or text)


class _Call:
    """One request to the application, and the reply as it is told."""

    def __init__(self, request: Request, body: bytes) -> None:
        self._request, self._body = request, body
        self._is_read = False
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []

    async def reply_of(self, app: ASGIApp, scope: Scope) -> Reply:
        """The application's reply. What it raises after its reply is only logged."""
        try:
            await app(scope, self._receive, self._send)
        except Exception:
            log.exception("a request to the administration failed: this is a defect of the gateway")
        if not self._status:
            return _error(500, "this is a defect of the gateway; the log says more")
        return Reply(self._status, _lines(self._headers), b"".join(self._parts))

    async def _receive(self) -> Message:
        if self._is_read:
            await self._request.disconnected()
            return {"type": "http.disconnect"}
        self._is_read = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
        else:
            self._parts.append(message.get("body", b""))


def _scope(request: Request, scheme: str) -> Scope:
    path, _, query = request.target.partition(b"?")
    if not path.startswith(b"/"):
        path = b"/" + b"/".join(path.split(b"/")[3:])  # of a whole URL
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": scheme,
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query.partition(b"#")[0],
        "root_path": "",
        "headers": list(request.headers.items()),
        "client": (request.peer, 0),
        "server": None,
    }


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are sent, but for those that the listener adds."""
    return b"".join(_line(name.lower(), value) for name, value in headers if name.lower() not in _BY_SERVER)


def _line(name: bytes, value: bytes) -> bytes:
    if b"\n" in value or b"\r" in value:
        raise ValueError(f"a line end in the header {name!r}")
    return b"%b: %b\r\n" % (name, value)


def _error(status: int, what: str) -> Reply:
    reply = json_reply({"error": what})
    return Reply(status, _lines(reply.raw_headers), bytes(reply.body))
