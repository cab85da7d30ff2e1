"""tritonclient against several models, one of which is broken: `python triton_several.py FOLDER`.

FOLDER/several.json says where they are: http, grpc, key, and the names of those that are ready and broken.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import tritonclient.grpc
import tritonclient.http
from cases import Case, hold, refused, same, walk
from tritonclient.utils import InferenceServerException

ROUTE = "POST /models/NAME/load"


def cases_of(protocol: str, client: Any, on: dict[str, Any], forbidden: str) -> Iterator[Case]:
    asked = {"headers": {"x-api-key": on["key"]}}
    yield f"{protocol}: the index lists all", partial(listed, client, on, asked)
    for name in on["ready"]:
        yield f"{protocol}: {name} is ready", partial(ready, client, name, asked, True)
        yield f"{protocol}: metadata of {name}", partial(described, client, name, asked)
    for name in on["broken"]:
        yield f"{protocol}: {name} is not ready", partial(ready, client, name, asked, False)
    yield f"{protocol}: the server is ready", partial(tells, client.is_server_ready)
    for call in (client.load_model, client.unload_model):
        change = partial(call, on["ready"][0], headers={"x-api-key": on["key"]})
        name = f"{protocol}: {call.__name__} is for administrators"
        yield name, partial(refused, change, InferenceServerException, forbidden, ROUTE)


async def listed(client: Any, on: dict[str, Any], asked: dict[str, Any]) -> None:
    models = client.get_model_repository_index(**asked)
    if not isinstance(models, list):
        models = [{"name": one.name, "state": one.state, "reason": one.reason} for one in models.models]
    states = {one["name"]: one["state"] for one in models}
    expected = dict.fromkeys(on["ready"], "READY") | dict.fromkeys(on["broken"], "UNAVAILABLE")
    same("states", states, expected)
    for one in models:
        same(f"whether {one['name']} has a reason", bool(one["reason"]), one["name"] in on["broken"])


async def ready(client: Any, name: str, asked: dict[str, Any], expected: bool) -> None:
    same("ready", client.is_model_ready(name, **asked), expected)


async def described(client: Any, name: str, asked: dict[str, Any]) -> None:
    model = client.get_model_metadata(name, **asked)
    same("name", model["name"] if isinstance(model, dict) else model.name, name)


async def tells(call: Callable[[], Any]) -> None:
    hold(call() is True, "the server is not ready")


async def main() -> None:
    on = json.loads((Path(sys.argv[1]) / "several.json").read_text())
    http = tritonclient.http.InferenceServerClient(on["http"])
    grpc = tritonclient.grpc.InferenceServerClient(on["grpc"])
    await walk(cases_of("http", http, on, "403"))
    await walk(cases_of("grpc", grpc, on, "PERMISSION_DENIED"))


if __name__ == "__main__":
    asyncio.run(main())
