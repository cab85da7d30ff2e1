"""kserve.InferenceRESTClient against a running gateway: `python kserve_rest.py FOLDER`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from itertools import chain, product
from typing import Any

import httpx
import numpy as np
from cases import HEADERS, Case, Target, answered, hold, refused, same, same_bits, same_classes, target, walk
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

SENT = ("json", "binary", "list")
WANTED = ("json", "binary", "unspecified", "all binary", "top3")
TOP = 3


def request_of(
    on: Target, x: np.ndarray, sent: str, wanted: str = "unspecified", id_: str | None = None
) -> Any:
    tensor = InferInput(on.input, list(x.shape), "FP32", data=x.ravel().tolist() if sent == "list" else None)
    if sent != "list":
        tensor.set_data_from_numpy(x, binary_data=sent == "binary")
    asked = {"json": {"binary_data": False}, "binary": {"binary_data": True}, "top3": {"classification": TOP}}
    return InferRequest(
        on.model,
        [tensor],
        request_id=id_,
        parameters={"binary_data_output": True} if wanted == "all binary" else None,
        request_outputs=[RequestedOutput(on.output, asked[wanted])] if wanted in asked else None,
    )


async def asks(
    client: Any, on: Target, *, sent: str, wanted: str, rows: int, id_: str | None, key: dict[str, str]
) -> None:
    got: dict[str, str] = {}
    request = request_of(on, on.rows[:rows], sent, wanted, id_)
    response = await client.infer(
        f"http://{on.http}", request, model_name=on.model, headers=dict(key), response_headers=got
    )
    same("model", response.model_name, on.model)
    hold(response.id == id_ if id_ else response.id, f"the id is {response.id!r}")  # it makes one up
    answered(response.parameters)
    same("headers", {name for name in HEADERS if got.get(name)}, set(HEADERS))
    [output] = response.outputs
    if wanted == "top3":
        same_classes(output.as_numpy(), on.expected[:rows], on.labels, TOP)
    else:
        same_bits(output.as_numpy(), on.expected[:rows])


def grid(client: Any, on: Target) -> Iterator[Case]:
    keys = ({"x-api-key": on.key}, {"Authorization": f"Bearer {on.key}"})
    for sent, wanted, rows, id_, key in product(SENT, WANTED, (1, 32), (None, "id-7"), keys):
        name = f"infer {sent} to {wanted}, {rows} rows, id {id_!r}, {min(key)}"
        yield name, partial(asks, client, on, sent=sent, wanted=wanted, rows=rows, id_=id_, key=key)


def metadata_cases(client: Any, on: Target) -> Iterator[Case]:
    at = f"http://{on.http}"
    for headers in (None, on.auth):
        known = f"headers {bool(headers)}"
        yield f"is_server_live, {known}", partial(tells, client.is_server_live, True, at, headers=headers)
        yield f"is_server_ready, {known}", partial(tells, client.is_server_ready, True, at, headers=headers)
        for model, ready in ((on.model, True), ("unknown", False)):
            call = partial(tells, client.is_model_ready, ready, at, model, headers=headers)
            yield f"is_model_ready of {model}, {known}", call


async def tells(call: Any, expected: bool, *of: Any, **more: Any) -> None:
    same("answer", await call(*of, **more), expected)


def refusals(client: Any, on: Target) -> Iterator[Case]:
    one, mixed = on.rows[:1], np.concatenate([on.rows[:3], on.odd])
    many = np.repeat(one, on.most + 1, axis=0)
    for sent in SENT:
        ask = partial(says_no, client, on, sent)
        yield f"an odd row in {sent} is an error", partial(ask, on.odd, on.model, on.key, "422", "deferred")
        yield (
            f"one odd row of four in {sent} is an error",
            partial(ask, mixed, on.model, on.key, "422", "deferred"),
        )
        yield (
            f"one row too many in {sent} is an error",
            partial(ask, many, on.model, on.key, "400", str(on.most)),
        )
    ask = partial(says_no, client, on, "json")
    unknown = partial(ask, one, "unknown", on.key, "404", "Request for unknown model")
    yield "an unknown model is an error", unknown
    yield "a wrong key is an error", partial(ask, one, on.model, "fsg_wrong", "401", "key")
    yield (
        "a caller who is too fast sees an error",
        partial(ask, on.rows, on.model, on.slow_key, "429", "too many"),
    )


async def says_no(
    client: Any, on: Target, sent: str, x: np.ndarray, model: str, key: str, status: str, word: str
) -> None:
    """The client's error has the words of the gateway, which it takes only from JSON that says it is JSON."""
    request = request_of(on, x, sent)
    call = partial(client.infer, f"http://{on.http}", request, model_name=model, headers={"x-api-key": key})
    await refused(call, httpx.HTTPStatusError, status, word)
    await asks(client, on, sent=sent, wanted="json", rows=1, id_=None, key=on.auth)


async def main() -> None:
    on = target()
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=10)) as client:
        await walk(chain(metadata_cases(client, on), grid(client, on), refusals(client, on)))


asyncio.run(main())
