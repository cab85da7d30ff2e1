"""The administration plane: metrics, status, policy, breakers, decisions, and the review console.

Every route needs the administration token (`pages/login.py`). The replica that receives a request answers for
all of them (`gateway.serving.replicas`); its own requests to the others carry `x-fs-alone`, and each of those
answers for itself.

    | route                                | does                                                     |
    |--------------------------------------|----------------------------------------------------------|
    | `GET /metrics`                       | Prometheus text of all replicas and deployments          |
    | `GET /decisions/{id}`                | the findings of a request, or of one row                 |
    | `POST /models/{name}/load`           | loads a deployment everywhere; `/unload` undoes          |
    | `GET /status`                        | the state of the deployment: a page; JSON if requested   |
    | `GET /policy`, `POST /policy/reload` | the policy in force; reads the folder again, everywhere  |
    | `POST /rungs/{name}/isolate`         | takes a model out of service by hand; `/restore` undoes  |
    | `/review...`                         | the review console (`console.py`)                        |

The last four are of one deployment. Of several, each has them below `/models/{name}`; `/status`, `/policy`
and `/policy/reload` by themselves are then of all.
"""

from __future__ import annotations

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
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin import console
from gateway.admin.everywhere import everywhere, reply_of_all
from gateway.admin.exposition import merged_metrics
from gateway.admin.loading import load, reload, unload
from gateway.admin.pages import (
    entry_of,
    gateway_of,
    json_reply,
    page,
    problem,
    repository_of,
    static,
    wants_html,
)
from gateway.admin.pages.login import HOME, AdminCredentials, RequireLogin, login, logout
from gateway.admin.pages.status import status_of, summary_of
from gateway.core.errors import Problems
from gateway.serving.decisions import rows_anywhere, rows_here
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import ALONE_HEADER, PeerReplicas
from gateway.serving.repository import NotReady, Repository

log = logging.getLogger(__name__)


def admin_app(repository: Repository, token: str) -> Starlette:
    """The administration plane of one replica, as an ASGI application. Raises ValueError for no token."""
    credentials = AdminCredentials(token)
    of_a_deployment = [
        Route("/status", status),
        Route("/policy", policy),
        Route("/policy/reload", reload, methods=["POST"]),
        Route("/rungs/{name}/isolate", _switch_rung, methods=["POST"]),
        Route("/rungs/{name}/restore", _switch_rung, methods=["POST"]),
        *console.ROUTES,
    ]
    loading = [Route("/load", load, methods=["POST"]), Route("/unload", unload, methods=["POST"])]
    app = Starlette(
        routes=[
            Route("/", _home),
            Route("/login", login, methods=["GET", "POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/pages/{name}", static),
            Route("/metrics", metrics),
            Route("/decisions/{id}", decision),
            Mount(
                "/models/{deployment}",
                routes=[*loading, *of_a_deployment],
                middleware=[Middleware(OwnRedirects)],
            ),
            *of_a_deployment,
        ],
        middleware=[Middleware(RequireLogin, credentials=credentials)],
        exception_handlers={HTTPException: _reply_http_error, Exception: _reply_defect},
    )
    app.state.repository, app.state.credentials = repository, credentials
    app.state.peers = PeerReplicas(repository.run, repository.replica, token.strip())
    return app


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
    text, silent = await merged_metrics(request)
    entries = repository_of(request).entries
    if "deployment" not in request.path_params and len(entries) > 1:
        listed = [summary_of(entry, text, silent) for entry in entries.values()]
        if not wants_html(request):
            return json_reply({"deployments": listed})
        return page(request, "overview", refresh_s=5, listed=listed)
    entry = entry_of(request)
    if isinstance(entry, NotReady):
        fields = summary_of(entry, text, silent)
        return page(request, "not_ready", 503, s=fields) if wants_html(request) else json_reply(fields, 503)
    fields = status_of(entry, text, silent)
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


async def _switch_rung(request: Request) -> Response:
    """Isolates or restores a rung's model on every replica. 409 if one of them did not."""
    gateway, name = gateway_of(request), request.path_params["name"]
    breakers = gateway.loaded.breakers
    if name not in breakers:
        known = list(breakers)
        what = f"{name!r} is no rung; the rungs are {', '.join(known)}"
        return problem(request, 404, "No such rung", what, rungs=known)
    own: dict[str, Any]
    try:
        state = await gateway.set_isolation(name, isolated=request.scope["path"].endswith("/isolate"))
        own = {"state": state.value}
    except (Problems, OSError) as error:
        own = {"problems": [str(error)]}
    log.warning("rung %s is %s, by hand", name, gateway.loaded.breakers[name].state)
    replicas = await everywhere(request, own)
    return reply_of_all(request, replicas, "Not every replica did that", "", rung=name)


async def decision(request: Request) -> Response:
    """The findings of a request, or of one of its rows, from any replica."""
    id_, audits = request.path_params["id"], [one.audit for one in repository_of(request).gateways.values()]
    alone = ALONE_HEADER in request.headers
    rows = rows_here(audits, id_) if alone else await rows_anywhere(audits, request.app.state.peers, id_)
    if rows:
        return json_reply({"id": id_, "rows": rows})
    return problem(request, 404, "No such decision", "it is unknown, or too old to be kept in memory")
