"""Reloads, loads and unloads deployments, on every replica."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.acts import record_act
from gateway.admin.everywhere import everywhere, reply_of_all
from gateway.admin.pages import entry_of, repository_of
from gateway.core.errors import Problems
from gateway.serving.gateway import Gateway
from gateway.serving.repository import Loaded

RELOAD_TIMEOUT_S = 60.0


async def reload(request: Request) -> Response:
    """Reads the folder again on every replica; every folder if the path names none of several.

    409 if one of them fails, which keeps its old policy. A deployment that is not ready is loaded, but for
    one that was unloaded by hand and is not named.
    """
    repository = repository_of(request)
    if "deployment" in request.path_params or len(repository.entries) == 1:
        found = await _load(request, "reload")
        title, what = "The policy was not reloaded everywhere", "There the old policy stays in force."
    else:
        done = await repository.load_all()
        for name, one in done.items():
            _record(request, "reload", name, one)
        found = {"deployments": {name: _fields(one) for name, one in done.items()}}
        title, what = "Not every policy was reloaded", "Where that failed nothing has changed."
    return reply_of_all(request, await everywhere(request, found, RELOAD_TIMEOUT_S), title, what)


async def load(request: Request) -> Response:
    """Loads a deployment on every replica, or reads it again where it is ready. 409 if one failed."""
    replicas = await everywhere(request, await _load(request, "load"), RELOAD_TIMEOUT_S)
    return reply_of_all(request, replicas, "It was not loaded everywhere", "There nothing has changed.")


async def unload(request: Request) -> Response:
    """Stops serving a deployment on every replica, until it is loaded or the replica restarts."""
    entry = entry_of(request)
    changed = await repository_of(request).unload(entry.name)
    record_act(request, "unload", entry.name, gateways=[entry] if isinstance(entry, Gateway) else None)
    replicas = await everywhere(request, {"changed": changed})
    return reply_of_all(request, replicas, "It was not unloaded everywhere", "")


async def _load(request: Request, act: str) -> dict[str, Any]:
    """Loads the deployment of the path, or reads it again, at this replica."""
    done: Loaded | Problems
    name = entry_of(request).name
    try:
        done = await repository_of(request).load(name)
    except Problems as error:
        done = error
    _record(request, act, name, done)
    return _fields(done)


def _record(request: Request, act: str, name: str, done: Loaded | Problems) -> None:
    """In the audit log of the deployment, or where it is not ready in those of the others."""
    gateway = repository_of(request).gateways.get(name)
    on = name if isinstance(done, Problems) else done.gateway.loaded.tag
    gateways = None if gateway is None else [gateway]
    record_act(request, act, on, done=isinstance(done, Loaded), gateways=gateways)


def _fields(done: Loaded | Problems) -> dict[str, Any]:
    """`changed` and `tag`, or `problems`."""
    if isinstance(done, Problems):
        return {"problems": [str(one) for one in done.problems]}
    return {"changed": done.changed, "tag": done.gateway.loaded.tag}
