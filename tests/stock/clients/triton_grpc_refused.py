"""Requests of tritonclient over gRPC that must be refused with an error it can read."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import numpy as np
from cases import HEADERS, Case, Target, hold, refused, same, same_bits, settle, text_of
from triton_grpc_answers import asks, given, typed
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

UNKNOWN_MODEL = "unknown"
TOO_LARGE, FAR_TOO_LARGE = 9 * 2**20, 17 * 2**20
UNKNOWN = "Request for unknown model"


def refusals(client: Any, on: Target) -> Iterator[Case]:
    """Every call that must end in the client's own exception; the gateway answers afterwards as before."""
    for name, call, status, *words in (*administration(client), *wrong(client, on), *ended(client, on)):
        yield f"{name} is refused with {status}", partial(survives, client, on, call, status, *words)
    for name, request, key, status, outcome in trailers(on):
        yield f"{name} says so in trailing metadata", partial(trails, client, request, key, status, outcome)
    yield "partial answers tell the odd row from the others", partial(in_part, client, on)


async def survives(client: Any, on: Target, call: Callable[[], Any], status: str, *words: str) -> None:
    await refused(call, InferenceServerException, status, *words)
    hold(await settle(client.is_server_live()), "the gateway is down")
    await asks(client, on)


def administration(client: Any) -> Iterator[tuple[str, Callable[[], Any], str]]:
    """Loading is for administrators; memory, traces and logs are not supported."""
    yield "load_model", partial(client.load_model, "letters"), "PERMISSION_DENIED"
    with_file = partial(client.load_model, "x", config="{}", files={"file:1/m.onnx": b"x"})
    yield "load_model with a file", with_file, "PERMISSION_DENIED"
    yield "unload_model", partial(client.unload_model, "letters"), "PERMISSION_DENIED"
    for kind in ("system", "cuda"):
        yield f"{kind} memory status", getattr(client, f"get_{kind}_shared_memory_status"), "UNIMPLEMENTED"
        yield (
            f"{kind} memory unregister",
            getattr(client, f"unregister_{kind}_shared_memory"),
            "UNIMPLEMENTED",
        )
    register = partial(client.register_system_shared_memory, "region", "/k", 64)
    yield "system memory register", register, "UNIMPLEMENTED"
    register = partial(client.register_cuda_shared_memory, "region", b"aGFuZGxl", 0, 64)
    yield "cuda memory register", register, "UNIMPLEMENTED"
    for model in (None, "letters"):
        yield f"trace settings of {model}", partial(client.get_trace_settings, model), "UNIMPLEMENTED"
        yield (
            f"a change of trace settings of {model}",
            partial(client.update_trace_settings, model),
            "UNIMPLEMENTED",
        )
    yield "log settings", client.get_log_settings, "UNIMPLEMENTED"
    yield "a change of log settings", partial(client.update_log_settings, {"log_info": True}), "UNIMPLEMENTED"
    # a stream is the scripts' own case: the two clients open it differently


def wrong(client: Any, on: Target) -> Iterator[tuple[Any, ...]]:
    """What the caller can mend."""
    one = on.rows[:1]
    ask = partial(client.infer, headers=on.auth, client_timeout=10)
    for model, version in ((UNKNOWN_MODEL, ""), (on.model, "9")):
        at = f"of {model}/{version}"
        yield f"infer {at}", partial(ask, model, given(on, one), version), "NOT_FOUND", UNKNOWN
        for call in ("get_model_metadata", "get_model_config", "get_inference_statistics"):
            asked = partial(getattr(client, call), model, version, headers=on.auth)
            yield f"{call} {at}", asked, "NOT_FOUND", UNKNOWN
    for header in ("x-api-key", "authorization"):
        key = {header: f"{'Bearer ' * (header == 'authorization')}fsg_wrong"}
        asked = partial(client.infer, on.model, given(on, one), headers=key)
        yield f"infer with a wrong {header}", asked, "UNAUTHENTICATED"
    many = given(on, np.repeat(one, on.most + 1, axis=0))
    yield "one row too many", partial(ask, on.model, many), "INVALID_ARGUMENT", str(on.most)
    large = given(on, np.repeat(one, TOO_LARGE // one.nbytes, axis=0))
    yield "a message too large", partial(ask, on.model, large), "INVALID_ARGUMENT", "at most"
    larger = given(on, np.repeat(one, FAR_TOO_LARGE // one.nbytes, axis=0))  # refused by grpc itself
    yield "a message far too large", partial(ask, on.model, larger), "RESOURCE_EXHAUSTED"
    narrow = InferInput(on.input, [1, 3], "FP32").set_data_from_numpy(np.zeros((1, 3), np.float32))
    yield "a wrong shape", partial(ask, on.model, [narrow]), "INVALID_ARGUMENT", "shape"
    whole = InferInput(on.input, list(one.shape), "INT64").set_data_from_numpy(one.astype(np.int64))
    yield "a wrong type", partial(ask, on.model, [whole]), "INVALID_ARGUMENT", "FP32"
    unknown = partial(ask, on.model, given(on, one), outputs=[InferRequestedOutput("x")])
    yield "an unknown output", unknown, "INVALID_ARGUMENT", "x"
    shared = InferInput(on.input, list(one.shape), "FP32").set_shared_memory("region", one.nbytes)
    yield "an input in shared memory", partial(ask, on.model, [shared]), "INVALID_ARGUMENT", "shared memory"
    there = InferRequestedOutput(on.output)
    there.set_shared_memory("region", 64)
    asked = partial(ask, on.model, given(on, one), outputs=[there])
    yield "an output in shared memory", asked, "INVALID_ARGUMENT", "shared memory"


def ended(client: Any, on: Target) -> Iterator[tuple[Any, ...]]:
    """What the gateway ends otherwise than with an answer."""
    ask = partial(client.infer, on.model, client_timeout=10)
    for packed in (None, "gzip", "deflate"):
        odd = partial(ask, given(on, on.odd), headers=on.auth, compression_algorithm=packed)
        yield f"an odd row, compressed with {packed}", odd, "FAILED_PRECONDITION", "deferred"
    mixed = given(on, np.concatenate([on.rows[:3], on.odd]))
    yield "a batch with one odd row", partial(ask, mixed, headers=on.auth), "FAILED_PRECONDITION", "deferred"
    short = partial(ask, given(on, on.rows), headers=on.auth, timeout=1)
    yield "a deadline of a microsecond", short, "DEADLINE_EXCEEDED"
    shorter = partial(client.infer, on.model, given(on, on.rows), headers=on.auth, client_timeout=-1.0)
    yield "a client that waits no time", shorter, "DEADLINE_EXCEEDED"
    fast = partial(ask, given(on, on.rows), headers={"x-api-key": on.slow_key})
    yield "a caller who is too fast", fast, "RESOURCE_EXHAUSTED"


def trailers(on: Target) -> Iterator[tuple[str, Any, str, str, tuple[str, str]]]:
    """Refusals over the stub: request, key, status, and the outcome and reason in the trailers."""
    one = typed(on, on.rows[:1], "asked")
    deferred = ("deferred", "abstained")
    yield "a deferred row", typed(on, on.odd, "asked"), on.key, "FAILED_PRECONDITION", deferred
    yield "a wrong key", one, "fsg_wrong", "UNAUTHENTICATED", ("refused", "unauthenticated")
    fast = ("refused", "rate_limited")
    yield "a caller who is too fast", typed(on, on.rows, "asked"), on.slow_key, "RESOURCE_EXHAUSTED", fast
    unknown = typed(on, on.rows[:1], "asked", version="9")
    yield "an unknown version", unknown, on.key, "NOT_FOUND", ("refused", "not_found")
    many = typed(on, np.repeat(on.rows[:1], on.most + 1, axis=0), "asked")
    yield "one row too many", many, on.key, "INVALID_ARGUMENT", ("refused", "invalid")
    late = typed(on, on.rows, "asked")
    late.parameters["timeout"].int64_param = 1
    yield "a deadline of a microsecond", late, on.key, "DEADLINE_EXCEEDED", ("refused", "deadline")


async def trails(client: Any, request: Any, key: str, status: str, outcome: tuple[str, str]) -> None:
    stub = client._client_stub
    call = partial(stub.ModelInfer, request, metadata=(("x-api-key", key),), timeout=10)
    error = await refused(call, grpc.RpcError, status)
    trailers = dict(error.trailing_metadata() or ())
    same("trailing metadata", {name for name in HEADERS if trailers.get(name)}, set(HEADERS))
    same("outcome", (trailers["x-failsafe-outcome"], trailers["x-failsafe-reason"]), outcome)


async def in_part(client: Any, on: Target) -> None:
    x = np.concatenate([on.rows[:2], on.odd, on.rows[2:3]])
    outputs = [InferRequestedOutput(name) for name in (on.output, "fs_row_outcome")]
    result = await settle(client.infer(on.model, given(on, x), outputs=outputs, headers=on.auth))
    ends = [text_of(end) for end in result.as_numpy("fs_row_outcome")]
    same("row outcomes", ends, ["served", "served", "deferred", "served"])
    got = result.as_numpy(on.output)
    hold(np.isnan(got[2]).all(), "the withheld row is not blank")
    same_bits(got[[0, 1, 3]], on.expected[:3])


async def streamed(client: Any, on: Target) -> Any:
    """The first thing that comes back on a stream of the client that is awaited."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": on.model, "inputs": given(on, on.rows[:1])}

    return await anext(aiter(client.stream_infer(requests(), headers=on.auth, stream_timeout=5)))


def called_back(client: Any, on: Target) -> Any:
    """The same of the client that calls back; raises what it is called with."""
    came: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: came.put((result, error)), stream_timeout=5, headers=on.auth)
    with suppress(InferenceServerException):  # refused before a request was sent: the callback has the reason
        client.async_stream_infer(on.model, given(on, on.rows[:1]))
    result, error = came.get(timeout=10)
    client.stop_stream()
    if error is not None:
        raise error
    return result
