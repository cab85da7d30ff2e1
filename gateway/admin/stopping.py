"""Stops and resumes rungs, models and all models, at every replica; and says what is stopped.

The replica that is asked writes the file of stops, then asks the others to read it, and replies when they
have: what is stopped then gives no answer anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.acts import record_act
from gateway.admin.authentication import person_of, signed_in
from gateway.admin.everywhere import everywhere, reply_of_all
from gateway.admin.pages import entry_of, fields_of, gateway_of, json_reply, problem, repository_of
from gateway.core.errors import Problems
from gateway.serving.gateway import Gateway
from gateway.serving.latch import Latch
from gateway.serving.stops import LONGEST_REASON, Scope, Stop

NOT_EVERYWHERE = "Not every replica did that"


async def stop_rung(request: Request) -> Response:
    """Takes a rung out of service at every replica. 409 if one of them did not."""
    return await _switch_rung(request, "isolate")


async def resume_rung(request: Request) -> Response:
    """Puts a rung back that was stopped by itself. 409 if a replica did not."""
    return await _switch_rung(request, "restore")


async def stop_model(request: Request) -> Response:
    """Stops a model as a whole at every replica, ready or not. 409 if one of them did not."""
    return await _switch_model(request, "stop")


async def resume_model(request: Request) -> Response:
    """Resumes a model that was stopped as a whole; what else stops it stays."""
    return await _switch_model(request, "resume")


async def stop_every_model(request: Request) -> Response:
    """Stops every model of every replica, those that are not ready too. 409 if a replica did not."""
    return await _switch_every_model(request, "stop")


async def resume_every_model(request: Request) -> Response:
    """Lifts what `/stop` has done, and writes a file of stops anew that cannot be read."""
    return await _switch_every_model(request, "resume")


async def stops(request: Request) -> Response:
    """What is stopped at every replica, each of which reads the files of stops first."""
    repository = repository_of(request)
    await repository.switch.look()
    own = {
        "problems": [one.now.problem for one in repository.switch.latches if one.now.problem],
        "stops": [
            stop.model_dump(mode="json") for one in repository.switch.latches for stop in one.now.stops
        ],
    }
    return json_reply({"replicas": await everywhere(request, own)})


async def _switch_rung(request: Request, act: str) -> Response:
    gateway, name = gateway_of(request), request.path_params["name"]
    if name not in gateway.loaded.breakers:
        known = list(gateway.loaded.breakers)
        what = f"{name!r} is no rung; the rungs are {', '.join(known)}"
        return problem(request, 404, "No such rung", what, rungs=known)
    scope = gateway.latch.file.scope(gateway.name, name)
    failed = await _switch(request, {gateway.latch: scope}, stopping=act == "isolate")
    own = failed or {"state": gateway.loaded.breakers[name].state.value}
    record_act(request, act, f"{gateway.name}/{name}", done=not failed, gateways=[gateway])
    return reply_of_all(request, await everywhere(request, own), NOT_EVERYWHERE, "", rung=name)


async def _switch_model(request: Request, act: str) -> Response:
    entry, repository = entry_of(request), repository_of(request)
    latch = repository.switch.latch_of(entry.folder)
    failed = await _switch(request, {latch: latch.file.scope(entry.name)}, stopping=act == "stop")
    gateways = [entry] if isinstance(entry, Gateway) else None
    record_act(request, act, entry.name, done=not failed, gateways=gateways)
    own = failed or {"stopped": latch.now.of(entry.name).why}
    return reply_of_all(request, await everywhere(request, own), NOT_EVERYWHERE, "", model=entry.name)


async def _switch_every_model(request: Request, act: str) -> Response:
    repository = repository_of(request)
    scopes = {latch: Scope() for latch in repository.switch.latches}
    failed = await _switch(request, scopes, stopping=act == "stop")
    record_act(request, act, done=not failed)
    own = failed or {
        "deployments": {
            name: {"stopped": repository.switch.latch_of(one.folder).now.of(name).why}
            for name, one in repository.entries.items()
        }
    }
    return reply_of_all(request, await everywhere(request, own), NOT_EVERYWHERE, "")


async def _switch(request: Request, scopes: Mapping[Latch, Scope], *, stopping: bool) -> dict[str, Any]:
    """Stops, or resumes, these scopes here; the problems of doing so.

    Another replica that forwards a resumption has written it already: to write it again could lift a stop
    that came in between.
    """
    switch, sender = repository_of(request).switch, signed_in(request)
    try:
        if stopping:
            await switch.stop(await _stops_of(request, scopes))
        else:
            follow = sender is not None and sender.is_replica
            await switch.resume(scopes, follow=follow)
    except (Problems, OSError) as error:
        return {"problems": [str(error)]}
    return {}


async def _stops_of(request: Request, scopes: Mapping[Latch, Scope]) -> dict[Latch, Stop]:
    """The stops that the sender asks for, with the field `reason` of the request. HTTPException 422."""
    reason, by, now = (await fields_of(request)).get("reason", ""), person_of(request).name, datetime.now(UTC)
    try:
        return {
            latch: Stop(model=scope.model, rung=scope.rung, by=by, at=now, reason=reason)
            for latch, scope in scopes.items()
        }
    except ValidationError as error:
        what = f"reason: must be a text of at most {LONGEST_REASON} characters"
        raise HTTPException(422, what) from error
