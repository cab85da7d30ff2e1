"""The administration plane: status, metrics, policy, breakers, decisions, and the review console.

Each route names the role that it needs (`routes.py`); `authentication.py` says who sends a request. The
replica that receives a request answers for all of them (`gateway.serving.replicas`); its own requests to the
others carry `x-fs-alone`, and each of those answers for itself.

    | route                                | role     | does                                              |
    |--------------------------------------|----------|---------------------------------------------------|
    | `GET /metrics`                       | scraper  | Prometheus text of all replicas and deployments   |
    | `GET /decisions/{id}`                | viewer   | the findings of a request, or of one row          |
    | `GET /sessions`                      | viewer   | who is signed in                                  |
    | `POST /sessions/{id}/end`            | viewer   | ends a session: one's own, or any for an operator |
    | `POST /models/{name}/load`           | operator | loads a deployment everywhere; `/unload` undoes   |
    | `POST /models/{name}/stop`           | operator | stops a model everywhere; `/resume` resumes it    |
    | `POST /stop`                         | operator | stops every model everywhere; `/resume` resumes   |
    | `GET /stops`                         | viewer   | reads the files of stops now; what is stopped     |
    | `GET /status`                        | viewer   | the state of the deployment: a page or JSON       |
    | `GET /callers`                       | viewer   | what callers have spent, and which are suspects   |
    | `GET /policy`                        | viewer   | the policy in force                               |
    | `POST /policy/reload`                | operator | reads the folder again, everywhere                |
    | `POST /rungs/{name}/isolate`         | operator | stops a rung everywhere; `/restore` resumes it    |
    | `/review...`                         | reviewer | the review console (`console.py`)                 |

The last six are of one deployment. Of several, each has them below `/models/{name}`; `/status`, `/policy`
and `/policy/reload` by themselves are then of all.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import quote

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.persons import Persons, Role
from gateway.access.persons_file import replica_token
from gateway.access.proxies import Proxies
from gateway.admin import console
from gateway.admin.authentication import Authentication
from gateway.admin.callers import MOST_ON_STATUS, callers, callers_everywhere
from gateway.admin.exposition import merged_metrics
from gateway.admin.loading import load, reload, unload
from gateway.admin.login import HOME, login, logout
from gateway.admin.pages import (
    entry_of,
    gateway_of,
    json_reply,
    load_templates,
    page,
    problem,
    repository_of,
    static,
    wants_html,
)
from gateway.admin.pages.status import status_of, summary_of
from gateway.admin.require_login import LOGIN, RequireLogin
from gateway.admin.routes import AdminRoute
from gateway.admin.session_pages import end_session, sessions
from gateway.admin.sessions import Sessions
from gateway.admin.stopping import (
    resume_every_model,
    resume_model,
    resume_rung,
    stop_every_model,
    stop_model,
    stop_rung,
    stops,
)
from gateway.serving.decisions import rows_anywhere, rows_here
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import ALONE_HEADER, PeerReplicas
from gateway.serving.repository import NotReady, Repository

log = logging.getLogger(__name__)


def admin_app(repository: Repository, token: str) -> Starlette:
    """The administration plane of one replica, as an ASGI application. Blocks.

    Args:    token: of the environment, which opens everything.
    Raises:  ValueError for a token that could be guessed; ArtifactError where the folder for state cannot be
             used.
    """
    load_templates()
    persons = Persons(repository.state, token)
    serving = repository.settings.policy.serving
    sessions = Sessions(repository.state / "sessions", persons.secret)
    proxies = Proxies(serving.trusted_proxies) if serving.trusted_proxies else None
    authentication = Authentication(persons, sessions, proxies, serving.person_header)
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(RequireLogin, authentication=authentication)],
        exception_handlers={HTTPException: _reply_http_error, Exception: _reply_defect},
    )
    app.state.repository, app.state.authentication = repository, authentication
    app.state.peers = PeerReplicas(repository.run, repository.replica, replica_token(persons.secret))
    return app


def _routes() -> list[BaseRoute]:
    of_a_deployment = [
        AdminRoute("/status", status, Role.VIEWER),
        AdminRoute("/callers", callers, Role.VIEWER),
        AdminRoute("/policy", policy, Role.VIEWER),
        AdminRoute("/policy/reload", reload, Role.OPERATOR, ["POST"]),
        AdminRoute("/rungs/{name}/isolate", stop_rung, Role.OPERATOR, ["POST"]),
        AdminRoute("/rungs/{name}/restore", resume_rung, Role.OPERATOR, ["POST"]),
        *console.ROUTES,
    ]
    of_a_named_one = [
        AdminRoute("/load", load, Role.OPERATOR, ["POST"]),
        AdminRoute("/unload", unload, Role.OPERATOR, ["POST"]),
        AdminRoute("/stop", stop_model, Role.OPERATOR, ["POST"]),
        AdminRoute("/resume", resume_model, Role.OPERATOR, ["POST"]),
    ]
    public = [Route(LOGIN, login, methods=["GET", "POST"]), Route("/pages/{name}", static)]
    return [
        *public,
        AdminRoute("/", _home, Role.VIEWER),
        AdminRoute("/logout", logout, Role.VIEWER, ["POST"]),
        AdminRoute("/sessions", sessions, Role.VIEWER),
        AdminRoute("/sessions/{id}/end", end_session, Role.VIEWER, ["POST"]),
        AdminRoute("/stop", stop_every_model, Role.OPERATOR, ["POST"]),
        AdminRoute("/resume", resume_every_model, Role.OPERATOR, ["POST"]),
        AdminRoute("/stops", stops, Role.VIEWER),
        AdminRoute("/metrics", metrics, Role.SCRAPER),
        AdminRoute("/decisions/{id}", decision, Role.VIEWER),
        Mount(
            "/models/{deployment}",
            routes=[*of_a_named_one, *of_a_deployment],
            middleware=[Middleware(OwnRedirects)],
        ),
        *of_a_deployment,
    ]


class OwnRedirects:
    """ASGI middleware below a mounted path, which puts the path before redirects to `/...`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_redirected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                if (target := headers.get("location", "")).startswith("/"):
                    headers["location"] = quote(scope["root_path"]) + target
            await send(message)

        await self._app(scope, receive, send_redirected)


async def _home(_: Request) -> Response:
    return RedirectResponse(HOME, 303)


async def _reply_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reply = problem(request, error.status_code, "That did not work", error.detail)
    reply.headers.update(error.headers or {})
    return reply


async def _reply_defect(request: Request, _: Exception) -> Response:
    what = "this is a defect of the gateway, or its disk; the log says more"
    return problem(request, 500, "Something broke", what)


async def metrics(request: Request) -> Response:
    """Prometheus text of this replica; unless a peer asks, also of every peer and of the review stores."""
    text, _ = await merged_metrics(request)
    return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


async def status(request: Request) -> Response:
    """The state of a deployment, or of all where the path names none of several; a page or JSON."""
    entries = repository_of(request).entries
    if "deployment" not in request.path_params and len(entries) > 1:
        text, silent = await merged_metrics(request)
        listed = [summary_of(entry, text, silent) for entry in entries.values()]
        if not wants_html(request):
            return json_reply({"deployments": listed})
        return page(request, "overview", refresh_s=5, listed=listed)
    entry = entry_of(request)
    if isinstance(entry, NotReady):
        fields = summary_of(entry, *await merged_metrics(request))
        return page(request, "not_ready", 503, s=fields) if wants_html(request) else json_reply(fields, 503)
    asked = merged_metrics(request), callers_everywhere(request, entry, MOST_ON_STATUS)
    (text, silent), seen = await asyncio.gather(*asked)  # a silent replica delays both alike
    fields = status_of(entry, text, silent, seen)
    if not wants_html(request):
        return json_reply(fields)
    return page(request, "status", refresh_s=5, s=fields)


async def policy(request: Request) -> Response:
    """The policy that this replica applies, as JSON; of every ready deployment where the path names none."""
    gateways = repository_of(request).gateways
    if "deployment" not in request.path_params and len(repository_of(request).entries) > 1:
        return json_reply({"deployments": {name: _policy(one) for name, one in gateways.items()}})
    return json_reply(_policy(gateway_of(request)))


def _policy(gateway: Gateway) -> dict[str, Any]:
    loaded = gateway.loaded
    return {"tag": loaded.tag, "policy": loaded.policy.model_dump(mode="json", by_alias=True)}


async def decision(request: Request) -> Response:
    """The findings of a request, or of one of its rows, from any replica; `?principal=`: only of this one."""
    id_, audits = request.path_params["id"], [one.audit for one in repository_of(request).gateways.values()]
    alone, principal = ALONE_HEADER in request.headers, request.query_params.get("principal")
    if alone:
        rows = rows_here(audits, id_, principal)
    else:
        rows = await rows_anywhere(audits, request.app.state.peers, id_, principal)
    if rows:
        return json_reply({"id": id_, "rows": rows})
    return problem(request, 404, "No such decision", "it is unknown, or too old to be kept in memory")
