"""ASGI middleware that passes on requests of known persons alone, with bodies of bounded size.

    | request                                        | result                                             |
    |------------------------------------------------|----------------------------------------------------|
    | `Authorization: Bearer TOKEN`                  | passes                                             |
    | the cookie at its session's URLs, GET or HEAD  | passes                                             |
    | the same, any other method                     | passes from our own pages, with their CSRF token   |
    | neither, for the login page or its style       | passes                                             |
    | neither, from a browser                        | redirected to the login page                       |
    | neither                                        | 401; 429 after too many wrong tokens               |

It runs before the router, so a route that is added later needs a login unless it is listed in PUBLIC_PATHS.
What a person may do is for each route to say (`routes.py`).
"""

from __future__ import annotations

import hmac
import math
from functools import partial
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.acts import record_act
from gateway.admin.authentication import (
    SESSION_ROOT,
    Authentication,
    SignedIn,
    TooManyAttempts,
    split_session,
)
from gateway.admin.pages import json_reply, parse_fields, wants_html
from gateway.serving.replicas import ALONE_HEADER

LOGIN = "/login"
CSRF_HEADER = "x-csrf-token"
PUBLIC_PATHS = frozenset({LOGIN, "/pages/style.css", "/pages/keys.js", "/pages/icon.svg"})
MAX_BODY_BYTES = 64 * 1024
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers would post Origin: null
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class RequireLogin:
    """Puts the sender into the state of a request, and the URLs of its session before redirects."""

    def __init__(self, app: ASGIApp, authentication: Authentication) -> None:
        self._app = app
        self._authentication = authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            handle, path = split_session(scope["path"])
            root = SESSION_ROOT + handle if handle else ""
            scope = {**scope, "root_path": root}
            await self._admit(Request(scope, receive), handle, path, _with_headers(send, root))

    async def _admit(self, request: Request, handle: str, path: str, send: Send) -> None:
        scope = request.scope
        try:
            authentication = self._authentication
            sender = await authentication.in_thread(partial(authentication.identify, request, handle))
        except TooManyAttempts as error:
            await reply_too_many(error)(scope, request.receive, send)
            return
        if sender is None and "authorization" in request.headers:
            record_act(request, "login", done=False, person="")
        if sender is None and path not in PUBLIC_PATHS:  # not url.path, which a crafted Host header changes
            await _reply_unauthenticated(request, path)(scope, request.receive, send)
            return
        request.state.signed_in, request.state.path = sender, path
        if sender is None or not sender.is_replica:
            named = ALONE_HEADER.encode()
            scope["headers"] = [header for header in scope["headers"] if header[0] != named]
        await self._pass_on(request, sender, path, send)

    async def _pass_on(self, request: Request, sender: SignedIn | None, path: str, send: Send) -> None:
        body = await _body(request)  # which the listener has read, within its time
        if body is None:
            await _refuse(request.scope, send, 413, "the request is too large")
        elif (
            sender is not None and sender.session is not None and not _may_change(request, sender, path, body)
        ):
            what = "only this console's own pages may do that: load the page again"
            await _refuse(request.scope, send, 403, what)
        else:
            await self._app(request.scope, _replay(body, request.receive), send)


def _may_change(request: Request, sender: SignedIn, path: str, body: bytes) -> bool:
    """Whether a request of a session only reads, or comes from one of our pages with its CSRF token."""
    if request.method in ("GET", "HEAD") or path in PUBLIC_PATHS:
        return True
    given = request.headers.get(CSRF_HEADER)
    if given is None:
        try:
            given = parse_fields(body, request.headers.get("content-type", "")).get("csrf")
        except ValueError:
            return False
    right = isinstance(given, str) and hmac.compare_digest(given.encode(), sender.csrf.encode())
    return right and same_origin(request)


def same_origin(request: Request) -> bool:
    """Whether one of our own pages sent the request. Another port of this host is another origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("origin", "")).netloc
    return origin != "" and origin == request.headers.get("host")


def reply_too_many(error: TooManyAttempts) -> Response:
    """429, with when to try again."""
    wait_s = math.ceil(error.wait_s)
    what = f"too many wrong tokens: try again in {wait_s} s; tokens of `gateway admin add` still work"
    reply = json_reply({"error": what}, 429)
    reply.headers["retry-after"] = str(wait_s)
    return reply


def _reply_unauthenticated(request: Request, path: str) -> Response:
    if wants_html(request):
        query = f"?next={quote(path)}" if request.method == "GET" else ""
        return RedirectResponse(f"{LOGIN}{query}", 303)
    reply = json_reply({"error": "a token of the administration is needed: Authorization: Bearer TOKEN"}, 401)
    reply.headers["www-authenticate"] = "Bearer"
    return reply


async def _refuse(scope: Scope, send: Send, status: int, what: str) -> None:
    await json_reply({"error": what}, status)(scope, _receive_disconnect, send)


async def _body(request: Request) -> bytes | None:
    """The body, or None if it is over MAX_BODY_BYTES."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive function that returns a body that was read already, then what the client sends after it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay


async def _receive_disconnect() -> Message:
    return {"type": "http.disconnect"}


def _with_headers(send: Send, root: str) -> Send:
    """A send function that adds the security headers to every response, and the root to redirects."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
            headers = MutableHeaders(raw=message["headers"])
            target = headers.get("location", "")
            if root and target.startswith("/") and not target.startswith((SESSION_ROOT, LOGIN)):
                headers["location"] = quote(root) + target
        await send(message)

    return send_with_headers
