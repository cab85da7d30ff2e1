"""The administration plane: metrics, status, policy, breakers, decisions, and the review console.

Every route needs the administration token (`pages/login.py`). The replica that receives a request answers for
all of them (`gateway.serving.replicas`); its own requests to the others carry `x-fs-alone`, and each of those
answers for itself.

    | route                                | does                                                     |
    |--------------------------------------|----------------------------------------------------------|
    | `GET /metrics`                       | Prometheus text of all replicas                          |
    | `GET /status`                        | the same as a page; JSON if requested                    |
    | `GET /policy`, `POST /policy/reload` | the policy in force; reads the folder again, everywhere  |
    | `POST /rungs/{name}/isolate`         | takes a model out of service by hand; `/restore` undoes  |
    | `GET /decisions/{id}`                | everything that was found of a request, or of one row    |
    | `/review...`                         | the review console (`console.py`)                        |
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fallbacks.breaker import BreakerState
from gateway.admin import console
from gateway.admin.pages import gateway_of, json_reply, page, problem, static, wants_html
from gateway.admin.pages.login import HOME, AdminCredentials, RequireLogin, login, logout
from gateway.admin.pages.status import status_of
from gateway.core.errors import Problems
from gateway.deployment.deployment import VAR
from gateway.serving.decisions import rows_anywhere, rows_here
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import ALONE, PeerReplicas, PeerReply, merge
from gateway.serving.review import QueuedReview

RELOAD_S = 60.0
SILENT = "no answer"
log = logging.getLogger(__name__)


def admin_app(gateway: Gateway, token: str) -> Starlette:
    """The administration plane of one replica, as an ASGI application. Raises ValueError for no token."""
    credentials = AdminCredentials(token)
    app = Starlette(
        routes=[
            Route("/", _home),
            Route("/login", login, methods=["GET", "POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/pages/{name}", static),
            Route("/metrics", metrics),
            Route("/status", status),
            Route("/policy", policy),
            Route("/policy/reload", reload, methods=["POST"]),
            Route("/rungs/{name}/isolate", _switch_rung, methods=["POST"]),
            Route("/rungs/{name}/restore", _switch_rung, methods=["POST"]),
            Route("/decisions/{id}", decision),
            *console.ROUTES,
        ],
        middleware=[Middleware(RequireLogin, credentials=credentials)],
        exception_handlers={HTTPException: _reply_http_error, Exception: _reply_defect},
    )
    app.state.gateway, app.state.credentials = gateway, credentials
    app.state.peers = PeerReplicas(gateway.folder / VAR / "run", gateway.replica, token.strip())
    return app


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


async def _ask_peers(request: Request, timeout_s: float | None = None) -> list[PeerReply]:
    """The other replicas' replies to this same request; none if it came from one of them."""
    if ALONE in request.headers:
        return []
    peers: PeerReplicas = request.app.state.peers
    path = quote(request.scope["path"])
    if timeout_s is None:
        return await peers.ask(request.method, path)
    return await peers.ask(request.method, path, timeout_s)


async def metrics(request: Request) -> Response:
    """Prometheus text of this replica; unless a peer asks, also of every peer and of the review store."""
    text, _ = await _measure(request)
    return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


async def _measure(request: Request) -> tuple[bytes, list[str]]:
    """The merged text, and the replicas that are missing from it."""
    gateway = gateway_of(request)
    own = [gateway.telemetry.prometheus(), _exposition(_replica_gauges(gateway))]
    if ALONE in request.headers:
        return merge(own), []
    answers = await request.app.state.peers.ask("GET", "/metrics")
    silent = [answer.replica for answer in answers if not answer.ok]
    shared = [*_replicas_gauge(len(answers) - len(silent) + 1, len(silent)), *await _review_gauges(gateway)]
    return merge([*own, *(answer.body for answer in answers if answer.ok), _exposition(shared)]), silent


class _FixedCollector(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _exposition(families: Iterator[Metric] | list[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_FixedCollector(list(families)))
    return generate_latest(registry)


def _replica_gauges(gateway: Gateway) -> Iterator[Metric]:
    """The metrics of this replica alone."""
    loaded, own = gateway.loaded, gateway.replica
    uptime_s, queued = time.time() - gateway.started_s, float(gateway.batcher.queued_rows)
    yield _gauge("gateway_uptime_seconds", "since the replica started", {own: uptime_s})
    yield _gauge("gateway_queued_rows", "rows that wait for a batch", {own: queued})
    lost = CounterMetricFamily("gateway_audit_lost", "audit lines that could not be kept", labels=["replica"])
    lost.add_metric([own], gateway.audit.lost)
    yield lost
    names = ["replica", "policy", "mode"]
    info = GaugeMetricFamily("gateway_policy_info", "the policy in force", labels=names)
    info.add_metric([own, loaded.tag, loaded.policy.mode], 1)
    yield info
    names = ["replica", "rung", "state"]
    breakers = GaugeMetricFamily("gateway_breaker_state", "1 for the state that it is in", labels=names)
    for rung, breaker in loaded.breakers.items():
        for state in BreakerState:
            breakers.add_metric([own, rung, state.value], breaker.state is state)
    yield breakers


def _gauge(name: str, what: str, values: dict[str, float], label: str = "replica") -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, what, labels=[label])
    for value, number in values.items():
        gauge.add_metric([value], number)
    return gauge


def _replicas_gauge(answering: int, silent: int) -> list[Metric]:
    values = {"yes": float(answering), "no": float(silent)}
    return [_gauge("gateway_replicas", "replicas on this machine, by whether they answer", values, "answers")]


async def _review_gauges(gateway: Gateway) -> list[Metric]:
    """The review store, which all replicas share: counted once, without a `replica` label."""
    if not isinstance(gateway.review, QueuedReview):
        return []
    reachable = GaugeMetricFamily("gateway_review_reachable", "whether the review queue can be read")
    try:
        cases = await gateway.review.store.counts()
    except Exception:
        log.exception("the review queue cannot be read")
        reachable.add_metric([], 0)
        return [reachable]
    reachable.add_metric([], 1)
    counts = {state.value: float(n) for state, n in cases.by_state.items()}
    oldest = GaugeMetricFamily("gateway_review_oldest_seconds", "age of the oldest case that waits")
    oldest.add_metric([], cases.oldest_waiting_s or 0.0)
    return [reachable, _gauge("gateway_review_cases", "cases by state", counts, "state"), oldest]


async def status(request: Request) -> Response:
    """The state of the deployment, as a page or as JSON."""
    text, silent = await _measure(request)
    fields = status_of(gateway_of(request), text, silent)
    if not wants_html(request):
        return json_reply(fields)
    return page(request, "status", refresh_s=5, s=fields)


async def policy(request: Request) -> Response:
    """The policy that this replica applies, as JSON."""
    loaded = gateway_of(request).loaded
    return json_reply({"tag": loaded.tag, "policy": loaded.policy.model_dump(mode="json", by_alias=True)})


async def reload(request: Request) -> Response:
    """Reads the folder again on every replica. 409 if one of them failed and keeps its old policy."""
    gateway = gateway_of(request)
    replicas: dict[str, Any] = {gateway.replica: _reload(gateway)}
    for answer in await _ask_peers(request, RELOAD_S):
        replicas[answer.replica] = _entry_of(answer, {"problems": [SILENT]})
    problems = {name: found["problems"] for name, found in replicas.items() if "problems" in found}
    if wants_html(request):
        if not problems:
            return RedirectResponse(HOME, 303)
        title, what = "The policy was not reloaded everywhere", "There the old policy stays in force."
        return page(request, "problem", 409, title=title, what=what, lists=problems)
    return json_reply({"replicas": replicas}, 409 if problems else 200)


def _reload(gateway: Gateway) -> dict[str, Any]:
    try:
        return {"changed": gateway.reload(), "tag": gateway.loaded.tag}
    except Problems as error:
        return {"problems": [str(one) for one in error.problems]}
    except Exception as error:
        log.exception("the reload broke")
        return {"problems": [f"{type(error).__name__}: the log says more"]}


def _entry_of(answer: PeerReply, otherwise: dict[str, Any]) -> dict[str, Any]:
    """A peer's own entry of its reply, which has one entry a replica."""
    reply = answer.json()
    entries = reply.get("replicas") if isinstance(reply, dict) else None
    entry = entries.get(answer.replica) if isinstance(entries, dict) else None
    return entry if isinstance(entry, dict) else otherwise


async def _switch_rung(request: Request) -> Response:
    """Isolates or restores a rung's model on every replica. 409 if one of them did not."""
    breakers = gateway_of(request).loaded.breakers
    name = request.path_params["name"]
    if name not in breakers:
        known = list(breakers)
        what = f"{name!r} is no rung; the rungs are {', '.join(known)}"
        return problem(request, 404, "No such rung", what, rungs=known)
    if request.scope["path"].endswith("/isolate"):
        breakers[name].isolate()
    else:
        breakers[name].restore()
    log.warning("rung %s is %s, by hand", name, breakers[name].state)
    replicas: dict[str, Any] = {gateway_of(request).replica: {"state": breakers[name].state.value}}
    for answer in await _ask_peers(request):
        replicas[answer.replica] = _entry_of(answer, {"problems": [SILENT]})
    problems = {one: found["problems"] for one, found in replicas.items() if "problems" in found}
    if not wants_html(request):
        return json_reply({"rung": name, "replicas": replicas}, 409 if problems else 200)
    if problems:
        return page(request, "problem", 409, title="Not every replica did that", what="", lists=problems)
    return RedirectResponse(HOME, 303)


async def decision(request: Request) -> Response:
    """Everything that was found of a request, or of one of its rows, on whichever replica."""
    id_, audit = request.path_params["id"], gateway_of(request).audit
    alone = ALONE in request.headers
    rows = rows_here(audit, id_) if alone else await rows_anywhere(audit, request.app.state.peers, id_)
    if rows:
        return json_reply({"id": id_, "rows": rows})
    return problem(request, 404, "No such decision", "it is unknown, or too old to be kept in memory")
