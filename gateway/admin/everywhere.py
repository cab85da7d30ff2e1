"""Requests that are forwarded to the other replicas, and their replies beside our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.admin.login import HOME
from gateway.admin.pages import json_reply, page, wants_html
from gateway.serving.replicas import ALONE_HEADER, TIMEOUT_S, PeerReplicas, PeerReply

NO_ANSWER = "no answer"


async def everywhere(request: Request, own: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """What this replica did, and what the others say to this same request, by replica.

    The others are not asked if the request came from one of them.
    """
    peers: PeerReplicas = request.app.state.peers
    replicas = {peers.own: own}
    if ALONE_HEADER not in request.headers:
        for answer in await peers.ask(request.method, quote(request.state.path), timeout_s):
            replicas[answer.replica] = _entry_of(answer, {"problems": [NO_ANSWER]})
    return replicas


def _entry_of(answer: PeerReply, default: dict[str, Any]) -> dict[str, Any]:
    """A peer's own entry of its reply, which has one entry a replica."""
    reply = answer.json()
    entries = reply.get("replicas") if isinstance(reply, dict) else None
    entry = entries.get(answer.replica) if isinstance(entries, dict) else None
    return entry if isinstance(entry, dict) else default


def reply_of_all(
    request: Request, replicas: Mapping[str, Any], title: str, what: str, **more: Any
) -> Response:
    """JSON with `more` members, or back to the status page; 409 with the problems if a replica has any.

    title, what: of the page with the problems.
    """
    problems = _problems_of(replicas)
    if not wants_html(request):
        return json_reply({**more, "replicas": replicas}, 409 if problems else 200)
    if problems:
        return page(request, "problem", 409, title=title, what=what, lists=problems)
    return RedirectResponse(HOME, 303)


def _problems_of(replicas: Mapping[str, Any]) -> dict[str, list[str]]:
    """The problems by replica, or by deployment and replica."""
    problems: dict[str, list[str]] = {}
    for replica, found in replicas.items():
        of = {f"{name} at {replica}": one for name, one in found.get("deployments", {}).items()}
        problems |= {at: one["problems"] for at, one in {replica: found, **of}.items() if "problems" in one}
    return problems
