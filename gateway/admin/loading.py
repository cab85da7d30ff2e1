"""Reloads, loads and unloads deployments, on every replica."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.everywhere import everywhere, reply_of_all
from gateway.admin.pages import entry_of, repository_of
from gateway.core.errors import Problems
from gateway.serving.repository import Loaded

RELOAD_TIMEOUT_S = 60.0


async def reload(request: Request) -> Response:
    """Reads the folder again on every replica; every folder if the path names none of several.

    409 if one of them fails, which keeps its old policy. A deployment that is not ready is loaded, but for
    one that was unloaded by hand and is not named.
    """
    repository = repository_of(request)
    if "deployment" in request.path_params or len(repository.entries) == 1:
        found = await _load(request)
        title, what = "The policy was not reloaded everywhere", "There the old policy stays in force."
    else:
        found = {"deployments": {name: _fields(one) for name, one in (await repository.load_all()).items()}}
        title, what = "Not every policy was reloaded", "Where that failed nothing has changed."
    return reply_of_all(request, await everywhere(request, found, RELOAD_TIMEOUT_S), title, what)


async def load(request: Request) -> Response:
    """Loads a deployment on every replica, or reads it again where it is ready. 409 if one failed."""
    replicas = await everywhere(request, await _load(request), RELOAD_TIMEOUT_S)
    return reply_of_all(request, replicas, "It was not loaded everywhere", "There nothing has changed.")


async def unload(request: Request) -> Response:
    """Stops serving a deployment on every replica, until it is loaded or the replica restarts."""
    changed = await repository_of(request).unload(entry_of(request).name)
    replicas = await everywhere(request, {"changed": changed})
    return reply_of_all(request, replicas, "It was not unloaded everywhere", "")


async def _load(request: Request) -> dict[str, Any]:
    """Loads the deployment of the path, or reads it again, at this replica."""
    try:
        return _fields(await repository_of(request).load(entry_of(request).name))
    except Problems as error:
        return _fields(error)


def _fields(done: Loaded | Problems) -> dict[str, Any]:
    """`changed` and `tag`, or `problems`."""
    if isinstance(done, Problems):
        return {"problems": [str(one) for one in done.problems]}
    return {"changed": done.changed, "tag": done.gateway.loaded.tag}
