"""Every way in which tritonclient can ask for inference over gRPC; all must give the model's own bits.

The clients send raw contents alone; typed contents go over the stub that they hold, in their own messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import grpc
import numpy as np
from cases import HEADERS, Case, Target, answered, hold, same, same_bits, same_classes, settle
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult, service_pb2

WANTED = ("unspecified", "asked", "top3")
PACKED = {
    None: grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}
TOP = 3
PLENTY_US = 5_000_000


def given(on: Target, x: np.ndarray) -> list[InferInput]:
    return [InferInput(on.input, list(x.shape), "FP32").set_data_from_numpy(x)]


def wanted_of(on: Target, wanted: str) -> list[InferRequestedOutput] | None:
    if wanted == "unspecified":
        return None
    return [InferRequestedOutput(on.output, class_count=TOP if wanted == "top3" else 0)]


def typed(on: Target, x: np.ndarray, wanted: str, id_: str = "", version: str = "") -> Any:
    """A request with its numbers in a field of the message."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name=on.input, datatype="FP32", shape=x.shape)
    tensor.contents.fp32_contents.extend(x.ravel().tolist())
    outputs = [one._get_tensor() for one in wanted_of(on, wanted) or ()]
    return service_pb2.ModelInferRequest(
        model_name=on.model, model_version=version, id=id_, inputs=[tensor], outputs=outputs
    )


def values_of(response: Any, on: Target, raw: bool) -> np.ndarray:
    """The first output, held to come in the form that was asked."""
    [output] = response.outputs
    form = (len(response.raw_output_contents), bool(output.contents.ByteSize()))
    same("raw and typed contents", form, (1, False) if raw else (0, True))
    if raw:
        return InferResult(response).as_numpy(on.output)
    if output.datatype == "BYTES":
        return np.array(list(output.contents.bytes_contents), np.object_).reshape(output.shape)
    return np.array(output.contents.fp32_contents, np.float32).reshape(output.shape)


async def asks(client: Any, on: Target, *, wanted: str = "asked", rows: int = 1, **more: Any) -> None:
    """One inference with raw contents, and everything that its answer must be."""
    more = {"headers": on.auth, "client_timeout": 10, **more}
    result = await settle(
        client.infer(on.model, given(on, on.rows[:rows]), outputs=wanted_of(on, wanted), **more)
    )
    holds(result.get_response(), on, wanted, rows, more.get("request_id", ""), raw=True)


async def asks_typed(
    client: Any, on: Target, *, wanted: str, rows: int, id_: str, version: str, packed: str | None
) -> None:
    request = typed(on, on.rows[:rows], wanted, id_, version)
    call = client._client_stub.ModelInfer(
        request, metadata=tuple(on.auth.items()), timeout=10, compression=PACKED[packed]
    )
    holds(await settle(call), on, wanted, rows, id_, raw=False)


def holds(response: Any, on: Target, wanted: str, rows: int, id_: str, raw: bool) -> None:
    same("model", (response.model_name, response.model_version), (on.model, on.version))
    same("id", response.id, id_)
    kinds = {value.WhichOneof("parameter_choice") for value in response.parameters.values()}
    hold(kinds <= {"string_param", "int64_param", "bool_param"}, f"KServe cannot read {kinds}")
    answered({name: value.string_param for name, value in response.parameters.items()})
    got = values_of(response, on, raw)
    if wanted == "top3":
        same("datatype", response.outputs[0].datatype, "BYTES")
        same_classes(got, on.expected[:rows], on.labels, TOP)
    else:
        same("datatype", response.outputs[0].datatype, "FP32")
        same_bits(got, on.expected[:rows])


def grid(client: Any, on: Target) -> Iterator[Case]:
    """Contents, compressions, sizes, ids and versions, each with each."""
    every = product(("raw", "typed"), WANTED, PACKED, (1, 32), ("", "id-7"), ("", on.version))
    for form, wanted, packed, rows, id_, version in every:
        name = f"infer {form} to {wanted}, {packed}, {rows} rows, id {id_!r}, version {version!r}"
        ask = partial(asks_typed if form == "typed" else asks, client, on, wanted=wanted, rows=rows)
        if form == "typed":
            yield name, partial(ask, id_=id_, version=version, packed=packed)
        else:
            yield name, partial(ask, request_id=id_, model_version=version, compression_algorithm=packed)


def extras(client: Any, on: Target) -> Iterator[Case]:
    """What may come along: metadata, priorities, timeouts, parameters, both ways to send a key."""
    metadata: tuple[dict[str, str], ...] = ({}, {"x-unknown": "1", "x-request-id": "a"})
    keys = ({"x-api-key": on.key}, {"authorization": f"Bearer {on.key}"})
    parameters = (None, {"text": "a", "number": 3, "real": 1.5, "truth": True})
    every = product(metadata, keys, (0, 1), (None, PLENTY_US), (None, 10.0), parameters)
    for header, key, priority, timeout, client_timeout, parameter in every:
        description = (
            f"metadata {bool(header)}, {min(key)}, priority {priority}, timeout {timeout}, {client_timeout} s"
        )
        case = partial(
            asks,
            client,
            on,
            headers={**header, **key},
            priority=priority,
            timeout=timeout,
            client_timeout=client_timeout,
            parameters=parameter,
        )
        yield f"infer {description}, parameters {bool(parameter)}", case
    yield "an answer has its outcome in trailing metadata", partial(trailed, client, on)


async def trailed(client: Any, on: Target) -> None:
    """Both clients give the trailing metadata of a call that was answered over their stub."""
    method, request = client._client_stub.ModelInfer, typed(on, on.rows[:1], "asked")
    metadata = tuple(on.auth.items())
    if hasattr(method, "with_call"):
        call = method.with_call(request, metadata=metadata, timeout=10)[1]
    else:
        call = method(request, metadata=metadata, timeout=10)
        await call
    trailers = dict(await settle(call.trailing_metadata()))
    same("trailing metadata", {name for name in HEADERS if trailers.get(name)}, set(HEADERS))
    same("outcome", trailers["x-failsafe-outcome"], "served")
