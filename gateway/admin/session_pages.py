"""Who is signed in: the sessions, which end here, and the persons. Operators see all, others their own."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.access.persons import Person, Role
from gateway.access.persons_file import load_persons
from gateway.admin.acts import record_act
from gateway.admin.authentication import authentication_of, person_of, signed_in
from gateway.admin.pages import json_reply, page, problem, repository_of, wants_html
from gateway.admin.sessions import Session
from gateway.core.errors import Problems

SESSIONS = "/sessions"


async def sessions(request: Request) -> Response:
    """The running sessions, the latest first, and the persons with their roles; a page or JSON."""
    viewer, sender = person_of(request), signed_in(request)
    own_id = sender.session.id if sender is not None and sender.session is not None else ""
    listed = [_fields(one, own_id) for one in await _visible(request, viewer)]
    try:
        state = repository_of(request).state
        persons = await authentication_of(request).in_thread(lambda: load_persons(state))
    except Problems as error:
        return problem(request, 500, "The persons cannot be read", str(error))
    shown = [
        one.model_dump(include={"name", "role", "added_s"})
        for one in persons
        if viewer.role is Role.OPERATOR or one.name == viewer.name
    ]
    if not wants_html(request):
        return json_reply({"sessions": listed, "persons": shown})
    return page(request, "sessions", sessions=listed, persons=shown, all=viewer.role is Role.OPERATOR)


async def end_session(request: Request) -> Response:
    """Ends a session: one's own, or any for an operator. 404 if there is none that one may end."""
    id_, authentication = request.path_params["id"], authentication_of(request)
    found = [one for one in await _visible(request, person_of(request)) if one.id == id_]
    if not found:
        return problem(request, 404, "No such session", "it has ended, or is another person's")
    await authentication.in_thread(lambda: authentication.sessions.end(id_))
    record_act(request, "end_session", found[0].person)
    return RedirectResponse(SESSIONS, 303) if wants_html(request) else json_reply({"id": id_, "ended": True})


async def _visible(request: Request, viewer: Person) -> list[Session]:
    authentication = authentication_of(request)

    def running() -> list[Session]:
        return [one for one in authentication.sessions.all() if authentication.person_in(one) is not None]

    found = await authentication.in_thread(running)
    return [one for one in found if viewer.role is Role.OPERATOR or one.person == viewer.name]


def _fields(session: Session, own_id: str) -> dict[str, Any]:
    return {
        "id": session.id,
        "person": session.person,
        "address": session.address,
        "started": session.started_s,
        "ends": session.ends_s,
        "own": session.id == own_id,
    }
