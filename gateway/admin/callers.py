"""What callers have spent of budgets of bits, over all replicas: `/callers`, and a part of `/status`."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.pages import gateway_of, json_reply
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import ALONE_HEADER, TIMEOUT_S
from gateway.serving.spent import MOST_LISTED, budgets_of, merged, spent_here

MOST_ON_STATUS: Final = 5


async def callers(request: Request) -> Response:
    """The 100 callers that spent most of each budget, the first of them first; without one, none."""
    gateway = gateway_of(request)
    if ALONE_HEADER in request.headers:
        return json_reply({"budgets": await spent_here(gateway)})
    return json_reply({"budgets": await spent_everywhere(request, gateway, MOST_LISTED)})


async def spent_everywhere(request: Request, gateway: Gateway, most: int) -> dict[str, list[dict[str, Any]]]:
    """By guard: what `most` callers have spent, and have left, of all replicas that answer."""
    if not any(True for _ in budgets_of(gateway)):
        return {}
    found = [await spent_here(gateway)]
    if ALONE_HEADER not in request.headers:
        path = f"/models/{quote(gateway.name)}/callers"
        answers = await request.app.state.peers.ask("GET", path, 2 * TIMEOUT_S)
        found += [reply["budgets"] for one in answers if one.ok and isinstance(reply := one.json(), dict)]
    return {name: merged((one.get(name, ()) for one in found), most) for name in found[0]}
