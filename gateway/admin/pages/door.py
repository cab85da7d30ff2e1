"""The door of the administration plane: nobody gets past without the token, or the session it bought.

    | who asks                                   | what happens                                         |
    |--------------------------------------------|------------------------------------------------------|
    | `Authorization: Bearer TOKEN`              | in                                                   |
    | the session cookie, to read                | in                                                   |
    | the session cookie, to change something    | in, from our own pages and with their CSRF token     |
    | anybody, for the login page and its style  | in                                                   |
    | anybody else, with a browser               | to the login page                                    |
    | anybody else                               | 401                                                  |

It stands in front of the router, so a route that is added later is closed until it is opened here. The
session is a keyed hash of the token: every replica that has the token knows it, and none keeps a list.
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

from gateway.admin.pages import page, parse_fields, told, wants_html

COOKIE = "fs_session"
CSRF_HEADER = "x-csrf-token"
OPEN = frozenset({"/login", "/pages/style.css", "/pages/keys.js", "/pages/icon.svg"})
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


class Keys:
    """What is derived from one token. Comparisons take the same time wherever they fail."""

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


class Door:
    """ASGI middleware; the innermost application sees only who may be there, and bodies of bounded size."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._admit(Request(scope, receive), _with_headers(send))

    async def _admit(self, request: Request, send: Send) -> None:
        by_token, by_session = self._bearer(request), self._cookie(request)
        if by_token or by_session:
            request.state.csrf = self._keys.csrf
        elif request.scope["path"] not in OPEN:  # not url.path: a crafted Host header can bend that
            await _denied(request)(request.scope, request.receive, send)
            return
        try:
            async with asyncio.timeout(BODY_S):
                body = await _body(request)
        except TimeoutError:
            await told({"error": "the request did not arrive in time"}, 408)(request.scope, _nothing, send)
            return
        if body is None:
            await told({"error": "the request is too large"}, 413)(request.scope, _nothing, send)
        elif by_session and not by_token and not self._own_page(request, body):
            what = "only this console's own pages may do that: load the page again"
            await told({"error": what}, 403)(request.scope, _nothing, send)
        else:
            await self._app(request.scope, _replay(body, request.receive), send)

    def _bearer(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._keys.is_token(given.encode("latin-1"))

    def _cookie(self, request: Request) -> bool:
        if "authorization" in request.headers:
            return False  # a wrong token is a wrong token, whatever else comes with it
        return self._keys.is_session(request.cookies.get(COOKIE, ""))

    def _own_page(self, request: Request, body: bytes) -> bool:
        """Whether a cookie's request reads only, or comes from a page of ours that holds the CSRF token."""
        if request.method in ("GET", "HEAD") or request.scope["path"] in OPEN:
            return True
        given = request.headers.get(CSRF_HEADER)
        if given is None:
            try:
                given = parse_fields(body, request.headers.get("content-type", "")).get("csrf")
            except ValueError:
                return False
        return isinstance(given, str) and self._keys.is_csrf(given) and _same_origin(request)


async def login(request: Request) -> Response:
    """GET: the form. POST: the session, for whoever has the token."""
    keys: Keys = request.app.state.keys
    if request.method != "POST":
        target = _own_path(request.query_params.get("next", HOME))
        return page(request, "login", target=target, wrong=False)
    try:
        fields = parse_fields(await request.body(), request.headers.get("content-type", ""))
    except ValueError:
        fields = {}
    target = _own_path(str(fields.get("next", HOME)))
    if not keys.is_token(str(fields.get("token", "")).encode()):
        log.warning("a login with a wrong token, from %s", request.client.host if request.client else "?")
        if wants_html(request):
            return page(request, "login", 401, target=target, wrong=True)
        return told({"error": "this is not the administration token"}, 401)
    reply = RedirectResponse(target, 303)
    secure = request.url.scheme == "https"
    reply.set_cookie(COOKIE, keys.session, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
    return reply


async def logout(_: Request) -> Response:
    """Makes the browser forget the session."""
    reply = RedirectResponse("/login", 303)
    reply.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return reply


def _denied(request: Request) -> Response:
    if wants_html(request):
        asks = f"?next={quote(request.scope['path'])}" if request.method == "GET" else ""
        return RedirectResponse(f"/login{asks}", 303)
    reply = told({"error": "an administration token is needed: Authorization: Bearer TOKEN"}, 401)
    reply.headers["www-authenticate"] = "Bearer"
    return reply


def _same_origin(request: Request) -> bool:
    """Whether one of our own pages sent this. Another port of this host is another origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("origin", "")).netloc
    return origin != "" and origin == request.headers.get("host")


def _own_path(path: str) -> str:
    """A path on this host, or the home page: `next` must not lead anywhere else."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else HOME


def _mac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


async def _body(request: Request) -> bytes | None:
    """The body, or None if it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body again to whoever reads next, and then what the client really sends: that it left."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _with_headers(send: Send) -> Send:
    async def strict(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await send(message)

    return strict
