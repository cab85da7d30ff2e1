"""Authentication of the administration plane: the token, or the session that a login with the token starts.

    | request                                      | result                                             |
    |----------------------------------------------|----------------------------------------------------|
    | `Authorization: Bearer TOKEN`                | passes                                             |
    | the session cookie, GET or HEAD              | passes                                             |
    | the session cookie, any other method         | passes from our own pages, with their CSRF token   |
    | neither, for the login page or its style     | passes                                             |
    | neither, from a browser                      | redirected to the login page                       |
    | neither                                      | 401                                                |

It stands in front of the router, so a route that is added later is closed until it is listed in PUBLIC_PATHS.
The session is a keyed hash of the token: every replica that has the token can verify it, and none stores it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.pages import json_reply, page, parse_fields, wants_html

COOKIE = "fs_session"
CSRF_HEADER = "x-csrf-token"
PUBLIC_PATHS = frozenset({"/login", "/pages/style.css", "/pages/keys.js", "/pages/icon.svg"})
HOME = "/status"
MAX_BODY_BYTES = 64 * 1024
BODY_S = 10.0
SESSION_S = 12 * 3600
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
log = logging.getLogger(__name__)


class AdminCredentials:
    """The administration token, and the session and CSRF token derived from it. Compares in constant time."""

    def __init__(self, token: str) -> None:
        if not token.strip():
            raise ValueError("the administration token is empty")
        self._token = token.strip().encode()
        self.session = _mac(self._token, "session")
        self.csrf = _mac(self.session.encode(), "csrf")

    def is_token(self, given: bytes) -> bool:
        return hmac.compare_digest(given.strip(), self._token)

    def is_session(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.session.encode())

    def is_csrf(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.csrf.encode())


class RequireLogin:
    """ASGI middleware that passes on authenticated requests alone, with bodies of bounded size."""

    def __init__(self, app: ASGIApp, credentials: AdminCredentials) -> None:
        self._app = app
        self._credentials = credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._admit(Request(scope, receive), _with_headers(send))

    async def _admit(self, request: Request, send: Send) -> None:
        by_token, by_session = self._has_token(request), self._has_session(request)
        if by_token or by_session:
            request.state.csrf = self._credentials.csrf
        elif request.scope["path"] not in PUBLIC_PATHS:  # not url.path, which a crafted Host header changes
            await _reply_unauthenticated(request)(request.scope, request.receive, send)
            return
        try:
            async with asyncio.timeout(BODY_S):
                body = await _body(request)
        except TimeoutError:
            await json_reply({"error": "the request did not arrive in time"}, 408)(
                request.scope, _receive_disconnect, send
            )
            return
        if body is None:
            await json_reply({"error": "the request is too large"}, 413)(
                request.scope, _receive_disconnect, send
            )
        elif by_session and not by_token and not self._may_change(request, body):
            what = "only this console's own pages may do that: load the page again"
            await json_reply({"error": what}, 403)(request.scope, _receive_disconnect, send)
        else:
            await self._app(request.scope, _replay(body, request.receive), send)

    def _has_token(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._credentials.is_token(given.encode("latin-1"))

    def _has_session(self, request: Request) -> bool:
        if "authorization" in request.headers:
            return False  # a wrong token is refused, with or without a session
        return self._credentials.is_session(request.cookies.get(COOKIE, ""))

    def _may_change(self, request: Request, body: bytes) -> bool:
        """Whether a request with a session only reads, or comes from one of our pages with its CSRF token."""
        if request.method in ("GET", "HEAD") or request.scope["path"] in PUBLIC_PATHS:
            return True
        given = request.headers.get(CSRF_HEADER)
        if given is None:
            try:
                given = parse_fields(body, request.headers.get("content-type", "")).get("csrf")
            except ValueError:
                return False
        return isinstance(given, str) and self._credentials.is_csrf(given) and _same_origin(request)


async def login(request: Request) -> Response:
    """GET: the form. POST: starts a session, if the token is right."""
    credentials: AdminCredentials = request.app.state.credentials
    if request.method != "POST":
        target = _own_path(request.query_params.get("next", HOME))
        return page(request, "login", target=target, wrong=False)
    try:
        fields = parse_fields(await request.body(), request.headers.get("content-type", ""))
    except ValueError:
        fields = {}
    target = _own_path(str(fields.get("next", HOME)))
    if not credentials.is_token(str(fields.get("token", "")).encode()):
        log.warning("a login with a wrong token, from %s", request.client.host if request.client else "?")
        if wants_html(request):
            return page(request, "login", 401, target=target, wrong=True)
        return json_reply({"error": "this is not the administration token"}, 401)
    reply = RedirectResponse(target, 303)
    secure = request.url.scheme == "https"
    reply.set_cookie(
        COOKIE, credentials.session, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure
    )
    return reply


async def logout(_: Request) -> Response:
    """Deletes the session cookie."""
    reply = RedirectResponse("/login", 303)
    reply.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return reply


def _reply_unauthenticated(request: Request) -> Response:
    if wants_html(request):
        query = f"?next={quote(request.scope['path'])}" if request.method == "GET" else ""
        return RedirectResponse(f"/login{query}", 303)
    reply = json_reply({"error": "an administration token is needed: Authorization: Bearer TOKEN"}, 401)
    reply.headers["www-authenticate"] = "Bearer"
    return reply


def _same_origin(request: Request) -> bool:
    """Whether one of our own pages sent the request. Another port of this host is another origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("origin", "")).netloc
    return origin != "" and origin == request.headers.get("host")


def _own_path(path: str) -> str:
    """A path on this host, or the home page: `next` must not redirect to another host."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else HOME


def _mac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


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


def _with_headers(send: Send) -> Send:
    """A send function that adds the security headers to every response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return send_with_headers
