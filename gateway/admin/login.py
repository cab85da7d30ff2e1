"""The login page, which starts a session for the person whose token it is given, and the logout."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.access.persons import Person, Role
from gateway.admin.acts import record_act
from gateway.admin.authentication import (
    SESSION_ROOT,
    TooManyAttempts,
    authentication_of,
    signed_in,
)
from gateway.admin.pages import json_reply, page, parse_fields, wants_html
from gateway.admin.require_login import LOGIN, reply_too_many, same_origin
from gateway.admin.sessions import SESSION_S

HOME = "/status"
MAX_SHOWN_IDENTITY = 254
WRONG_TOKEN = "This is no token of a person here."  # noqa: S105 (a message)


async def login(request: Request) -> Response:
    """GET: the form. POST: starts a session, if the token is a person's."""
    if request.method != "POST":
        return await _login_page(request, _own_path(request.query_params.get("next", HOME)))
    try:
        fields = parse_fields(await request.body(), request.headers.get("content-type", ""))
    except ValueError:
        fields = {}
    target = _own_path(str(fields.get("next", HOME)))
    if _is_foreign(request):
        return _reply_not_signed_in(request, 403, target, "Another site sent this: use this page's own form.")
    try:
        authentication, token = authentication_of(request), str(fields.get("token", "")).strip()
        person = await authentication.in_thread(lambda: authentication.person_of(request, token))
    except TooManyAttempts as error:
        if wants_html(request):
            return _reply_not_signed_in(request, 429, target, f"{str(error).capitalize()}.")
        return reply_too_many(error)
    if person is None or person.role < Role.VIEWER:
        record_act(request, "login", done=False, person="" if person is None else person.name)
        return _reply_not_signed_in(request, 401, target, WRONG_TOKEN)
    return await start_session(request, person, target)


async def _login_page(request: Request, target: str) -> Response:
    """The form; or, for a person whom a trusted proxy names, a session."""
    authentication = authentication_of(request)
    identity = authentication.identity_of(request)
    if identity is None:
        return page(request, "login", target=target, wrong="")
    person = await authentication.in_thread(lambda: authentication.persons.with_identity(identity))
    if person is None or person.role < Role.VIEWER:
        record_act(request, "login", identity[:MAX_SHOWN_IDENTITY], done=False, person="")
        return page(request, "login", 403, target=target, wrong=f"{identity} is no person here.")
    return await start_session(request, person, target)


async def start_session(request: Request, person: Person, target: str) -> Response:
    """Signs a person in: sets the cookie of a new session and redirects to a path below its URLs."""
    authentication = authentication_of(request)
    sessions, origin = authentication.sessions, authentication.origin_of(request)
    address = authentication.address_of(request)
    cookie = await authentication.in_thread(lambda: sessions.start(person, origin, address))
    record_act(request, "login", person=person.name)
    root = SESSION_ROOT + sessions.handle(cookie)
    reply = RedirectResponse(root + target, 303)
    _set_cookie(request, reply, cookie, root, int(SESSION_S))
    return reply


def _set_cookie(request: Request, reply: Response, value: str, root: str, max_age_s: int) -> None:
    """With TLS the prefix `__Host-` binds a cookie to this host; without, its path to the session."""
    authentication = authentication_of(request)
    secure = authentication.is_secure(request)
    reply.set_cookie(
        authentication.cookie_name(request),
        value,
        max_age=max_age_s,
        path="/" if secure else root,
        httponly=True,
        samesite="strict",
        secure=secure,
    )


async def logout(request: Request) -> Response:
    """Ends the session, at every replica, and deletes its cookie."""
    reply, sender = RedirectResponse(LOGIN, 303), signed_in(request)
    if sender is not None and sender.session is not None:
        id_ = sender.session.id
        authentication = authentication_of(request)
        await authentication.in_thread(lambda: authentication.sessions.end(id_))
        record_act(request, "logout")
        _set_cookie(request, reply, "", sender.root, 0)
    return reply


def _reply_not_signed_in(request: Request, status: int, target: str, wrong: str) -> Response:
    if wants_html(request):
        return page(request, "login", status, target=target, wrong=wrong)
    return json_reply({"error": wrong}, status)


def _is_foreign(request: Request) -> bool:
    """Whether a page of another origin sent the request. A client that is no browser does not say."""
    says = "sec-fetch-site" in request.headers or "origin" in request.headers
    return says and not same_origin(request)


def _own_path(path: str) -> str:
    """A path on this host, or the home page: `next` must not redirect to another host."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else HOME
