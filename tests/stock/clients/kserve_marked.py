"""KServe's SDK against a gateway that marks withheld rows: `python kserve_marked.py FOLDER`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import httpx
from cases import Case, Target, marked, refused, target, walk
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def request_of(on: Target, x: Any, binary: bool) -> Any:
    tensor = InferInput(on.input, list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    return InferRequest(
        on.model, [tensor], request_outputs=[RequestedOutput(on.output, {"binary_data": binary})]
    )


def rest_cases(client: Any, on: Target) -> Iterator[Case]:
    for binary in (False, True):
        form = "binary" if binary else "json"
        yield f"REST, {form}: a marked batch is read", partial(rest_marked, client, on, binary)
        alone = partial(
            client.infer,
            f"http://{on.http}",
            request_of(on, on.odd, binary),
            model_name=on.model,
            headers=on.auth,
        )
        yield (
            f"REST, {form}: a row that is withheld alone is an error",
            partial(refused, alone, httpx.HTTPStatusError, "422"),
        )


def grpc_cases(client: Any, on: Target) -> Iterator[Case]:
    for form in ("raw", "typed"):
        yield f"gRPC, {form}: a marked batch is read", partial(grpc_marked, client, on, form)
    alone = partial(client.infer, grpc_request(on, on.odd, "raw"), headers=tuple(on.auth.items()), timeout=10)
    yield (
        "gRPC: a row that is withheld alone is an error",
        partial(refused, alone, grpc.RpcError, "FAILED_PRECONDITION"),
    )


def grpc_request(on: Target, x: Any, form: str) -> Any:
    """Numbers in a numpy array go as raw bytes; a list goes typed."""
    data = x if form == "raw" else x.ravel().tolist()
    return InferRequest(on.model, [InferInput(on.input, list(x.shape), "FP32", data=data)])


async def rest_marked(client: Any, on: Target, binary: bool) -> None:
    response = await client.infer(
        f"http://{on.http}", request_of(on, on.mixed, binary), model_name=on.model, headers=on.auth
    )
    marked(on, response.parameters, response.outputs[0].as_numpy())


async def grpc_marked(client: Any, on: Target, form: str) -> None:
    request = grpc_request(on, on.mixed, form)
    response = await client.infer(request, headers=tuple(on.auth.items()), timeout=10)
    parameters = {name: one.string_param for name, one in response.parameters.items()}
    marked(on, parameters, response.outputs[0].as_numpy())


async def main() -> None:
    on = target()
    async with (
        InferenceRESTClient(RESTConfig(protocol="v2", timeout=10)) as over_http,
        InferenceGRPCClient(on.grpc, timeout=10) as over_grpc,
    ):
        await walk([*rest_cases(over_http, on), *grpc_cases(over_grpc, on)])


asyncio.run(main())
