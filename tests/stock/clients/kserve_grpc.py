"""kserve.InferenceGRPCClient against a running gateway: `python kserve_grpc.py FOLDER`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from itertools import chain, product
from typing import Any

import grpc
import numpy as np
from cases import HEADERS, Case, Target, answered, refused, same, same_bits, same_classes, target, walk
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput

SENT = ("raw", "typed")
WANTED = ("unspecified", "asked", "top3")
TOP = 3


def request_of(
    on: Target, x: np.ndarray, sent: str, wanted: str = "unspecified", id_: str | None = None
) -> Any:
    """Numbers in a numpy array go as raw bytes, with a `binary_data_size` beside them; a list goes typed."""
    tensor = InferInput(on.input, list(x.shape), "FP32", data=x if sent == "raw" else x.ravel().tolist())
    asked = RequestedOutput(on.output, {"classification": TOP} if wanted == "top3" else None)
    return InferRequest(
        on.model, [tensor], request_id=id_, request_outputs=None if wanted == "unspecified" else [asked]
    )


async def asks(
    client: Any, on: Target, *, sent: str, wanted: str, rows: int, id_: str | None, key: dict[str, str]
) -> None:
    request = request_of(on, on.rows[:rows], sent, wanted, id_)
    response = await client.infer(request, headers=tuple(key.items()), timeout=10)
    same("model", (response.model_name, response.model_version), (on.model, on.version))
    same("id", response.id, id_ or "")
    answered({name: value.string_param for name, value in response.parameters.items()})
    [output] = response.outputs
    if wanted == "top3":
        same_classes(output.as_numpy(), on.expected[:rows], on.labels, TOP)
    else:
        same_bits(output.as_numpy(), on.expected[:rows])


def grid(client: Any, on: Target) -> Iterator[Case]:
    keys = ({"x-api-key": on.key}, {"authorization": f"Bearer {on.key}"})
    for sent, wanted, rows, id_, key in product(SENT, WANTED, (1, 32), (None, "id-7"), keys):
        name = f"infer {sent} to {wanted}, {rows} rows, id {id_!r}, {min(key)}"
        yield name, partial(asks, client, on, sent=sent, wanted=wanted, rows=rows, id_=id_, key=key)


def metadata_cases(client: Any, on: Target) -> Iterator[Case]:
    yield "is_server_live", partial(tells, client.is_server_live)
    yield "is_server_ready", partial(tells, client.is_server_ready)
    yield "is_model_ready", partial(tells, client.is_model_ready, on.model)


async def tells(call: Any, *of: Any) -> None:
    same("answer", await call(*of, timeout=5), True)


def refusals(client: Any, on: Target) -> Iterator[Case]:
    one, mixed = on.rows[:1], np.concatenate([on.rows[:3], on.odd])
    many = np.repeat(one, on.most + 1, axis=0)
    for sent in SENT:
        ask = partial(says_no, client, on, sent)
        yield (
            f"an odd row, {sent}, is an error",
            partial(ask, on.odd, on.key, "FAILED_PRECONDITION", "deferred"),
        )
        four = partial(ask, mixed, on.key, "FAILED_PRECONDITION", "deferred")
        yield f"one odd row of four, {sent}, is an error", four
        most = partial(ask, many, on.key, "INVALID_ARGUMENT", str(on.most))
        yield f"one row too many, {sent}, is an error", most
    ask = partial(says_no, client, on, "raw")
    yield "a wrong key is an error", partial(ask, one, "fsg_wrong", "UNAUTHENTICATED", "key")
    fast = partial(ask, on.rows, on.slow_key, "RESOURCE_EXHAUSTED", "too many")
    yield "a caller who is too fast sees an error", fast
    yield "an unknown model is an error", partial(unknown, client, on)


async def says_no(
    client: Any, on: Target, sent: str, x: np.ndarray, key: str, status: str, word: str
) -> None:
    """gRPC's own error, with words, and with the outcome in trailing metadata."""
    call = partial(client.infer, request_of(on, x, sent), headers=(("x-api-key", key),), timeout=10)
    error: Any = await refused(call, grpc.RpcError, status, word)
    trailers = dict(error.trailing_metadata() or ())
    same("trailing metadata", {name for name in HEADERS if trailers.get(name)}, set(HEADERS))
    await asks(client, on, sent=sent, wanted="asked", rows=1, id_=None, key=on.auth)


async def unknown(client: Any, on: Target) -> None:
    tensor = InferInput(on.input, [1], "FP32", data=[0.0])
    call = partial(client.infer, InferRequest("unknown", [tensor]), headers=tuple(on.auth.items()))
    await refused(call, grpc.RpcError, "NOT_FOUND", "Request for unknown model")
    await refused(partial(client.is_model_ready, "unknown"), grpc.RpcError, "NOT_FOUND")


async def main() -> None:
    on = target()
    async with InferenceGRPCClient(on.grpc, timeout=10) as client:
        await walk(chain(metadata_cases(client, on), grid(client, on), refusals(client, on)))


asyncio.run(main())
