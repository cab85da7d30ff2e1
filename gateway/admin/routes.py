"""A route of the administration plane, which names the role that it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.access.persons import Role
from gateway.admin.acts import record_act
from gateway.admin.authentication import person_of
from gateway.admin.pages import problem

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class AdminRoute(Route):
    """Answers those whose role is `needs` or above it; 403 for others."""

    def __init__(self, path: str, endpoint: Endpoint, needs: Role, methods: Sequence[str] = ("GET",)) -> None:
        self.needs = needs
        super().__init__(path, _for_role(endpoint, needs), methods=list(methods))


def _for_role(endpoint: Endpoint, needs: Role) -> Endpoint:
    async def answer(request: Request) -> Response:
        person = person_of(request)
        if person.role >= needs:
            return await endpoint(request)
        if request.method not in ("GET", "HEAD"):
            record_act(request, "refused", request.state.path, done=False)
        what = f"this needs the role {needs.label}, and {person.name} is a {person.role.label}"
        return problem(request, 403, "Your role does not allow this", what)

    return answer
