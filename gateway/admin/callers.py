"""What callers have spent of budgets, and which seem to search: `/callers`, and a part of `/status`."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.pages import gateway_of, json_reply
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import ALONE_HEADER, TIMEOUT_S
from gateway.serving.spent import MOST_LISTED, merged, spent_here
from gateway.serving.suspected import merged_suspects, suspected_here

MOST_ON_STATUS: Final = 5


async def callers(request: Request) -> Response:
    """By guard, the 100 callers that spent most of a budget, and the 100 suspects with most evidence.

    A replica that asks gets what this one has itself, not merged.
    """
    gateway = gateway_of(request)
    if ALONE_HEADER in request.headers:
        return json_reply(await _here(gateway))
    return json_reply(await callers_everywhere(request, gateway, MOST_LISTED))


async def callers_everywhere(request: Request, gateway: Gateway, most: int) -> dict[str, Any]:
    """`budgets` and `suspects`, by guard: `most` of each, of all replicas that answer."""
    own = await _here(gateway)
    found = [own]
    if ALONE_HEADER not in request.headers and any(own.values()):
        path = f"/models/{quote(gateway.name)}/callers"
        answers = await request.app.state.peers.ask("GET", path, 2 * TIMEOUT_S)
        found += [reply for one in answers if one.ok and isinstance(reply := one.json(), dict)]
    return {
        part: {
            guard: together((one.get(part, {}).get(guard, ()) for one in found), most) for guard in own[part]
        }
        for part, together in (("budgets", merged), ("suspects", merged_suspects))
    }


async def _here(gateway: Gateway) -> dict[str, dict[str, list[dict[str, Any]]]]:
    return {"budgets": await spent_here(gateway), "suspects": suspected_here(gateway)}
