"""Requests of tritonclient over HTTP that must be refused with an error it can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from cases import Case, Target, hold, refused, same, same_bits, settle, text_of
from triton_http_answers import asks, given
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

UNKNOWN_MODEL = "unknown"
FAR_TOO_LARGE = 2**24


def refusals(client: Any, on: Target) -> Iterator[Case]:
    """Every call that must end in the client's own exception; the gateway answers afterwards as before."""
    for name, call, status, *words in (*administration(client), *wrong(client, on), *ended(client, on)):
        yield f"{name} is refused with {status}", partial(survives, client, on, call, status, *words)
    yield "an unknown model is not ready", partial(not_ready, client, on.auth, UNKNOWN_MODEL, "")
    yield "an unknown version is not ready", partial(not_ready, client, on.auth, on.model, "9")
    yield "partial answers tell the odd row from the others", partial(in_part, client, on, True)
    yield "partial answers in JSON have null for the odd row", partial(in_part, client, on, False)


async def survives(client: Any, on: Target, call: Callable[[], Any], status: str, *words: str) -> None:
    await refused(call, InferenceServerException, status, *words)
    hold(await settle(client.is_server_live()), "the gateway is down")
    await asks(client, on, sent="json", wanted="binary", rows=1)


async def not_ready(client: Any, auth: dict[str, str], model: str, version: str) -> None:
    same("ready", await settle(client.is_model_ready(model, version, headers=auth)), False)


def administration(client: Any) -> Iterator[tuple[str, Callable[[], Any], str]]:
    """Loading is for administrators; memory, traces and logs are not supported."""
    yield "load_model", partial(client.load_model, "letters"), "403"
    yield (
        "load_model with a file",
        partial(client.load_model, "x", config="{}", files={"file:1/m.onnx": b"x"}),
        "403",
    )
    yield "unload_model", partial(client.unload_model, "letters"), "403"
    for kind in ("system", "cuda"):
        yield f"{kind} memory status", getattr(client, f"get_{kind}_shared_memory_status"), "501"
        status_of_one = partial(getattr(client, f"get_{kind}_shared_memory_status"), "region")
        yield f"{kind} memory status of a region", status_of_one, "501"
        unregister = getattr(client, f"unregister_{kind}_shared_memory")
        yield f"{kind} memory unregister", partial(unregister, "region"), "501"
        yield f"{kind} memory unregister of all", unregister, "501"
    yield "system memory register", partial(client.register_system_shared_memory, "region", "/k", 64), "501"
    yield (
        "cuda memory register",
        partial(client.register_cuda_shared_memory, "region", "aGFuZGxl", 0, 64),
        "501",
    )
    for model in (None, "letters"):
        yield f"trace settings of {model}", partial(client.get_trace_settings, model), "501"
        yield f"a change of trace settings of {model}", partial(client.update_trace_settings, model), "501"
    yield "log settings", client.get_log_settings, "501"
    yield "a change of log settings", partial(client.update_log_settings, {"log_info": True}), "501"


def wrong(client: Any, on: Target) -> Iterator[tuple[Any, ...]]:
    """What the caller can mend."""
    one = on.rows[:1]

    def ask(*of: Any, **more: Any) -> Callable[[], Any]:
        return lambda: client.infer(*of, headers=on.auth, **more)

    unknown = "Request for unknown model"
    for model, version in ((UNKNOWN_MODEL, ""), (on.model, "9")):
        at = f"of {model}/{version}"
        yield f"infer {at}", ask(model, given(on, one), version), "404", unknown
        for call in ("get_model_metadata", "get_model_config", "get_inference_statistics"):
            yield (
                f"{call} {at}",
                partial(getattr(client, call), model, version, headers=on.auth),
                "404",
                unknown,
            )
    for header in ("x-api-key", "Authorization"):
        key = {header: f"{'Bearer ' * (header == 'Authorization')}fsg_wrong"}
        yield (
            f"infer with a wrong {header}",
            partial(client.infer, on.model, given(on, one), headers=key),
            "401",
        )
    many = np.repeat(one, on.most + 1, axis=0)
    for sent in ("json", "binary"):
        yield f"one row too many in {sent}", ask(on.model, given(on, many, sent)), "400", str(on.most)
    far = np.repeat(one, FAR_TOO_LARGE // one.nbytes, axis=0)
    yield "a body far too large", ask(on.model, given(on, far)), "413"
    narrow = InferInput(on.input, [1, 3], "FP32").set_data_from_numpy(np.zeros((1, 3), np.float32))
    yield "a wrong shape", ask(on.model, [narrow]), "400", "shape"
    whole = InferInput(on.input, list(one.shape), "INT64").set_data_from_numpy(one.astype(np.int64))
    yield "a wrong type", ask(on.model, [whole]), "400", "FP32"
    yield "an unknown output", ask(on.model, given(on, one), outputs=[InferRequestedOutput("x")]), "400", "x"
    shared = InferInput(on.input, list(one.shape), "FP32").set_shared_memory("region", one.nbytes)
    yield "an input in shared memory", ask(on.model, [shared]), "400", "shared memory"
    there = InferRequestedOutput(on.output)
    there.set_shared_memory("region", 64)
    yield "an output in shared memory", ask(on.model, given(on, one), outputs=[there]), "400", "shared memory"


def ended(client: Any, on: Target) -> Iterator[tuple[Any, ...]]:
    """What the gateway ends otherwise than with an answer."""
    ask = partial(client.infer, on.model)
    for packed in (None, "gzip", "deflate"):
        pack = {"request_compression_algorithm": packed, "response_compression_algorithm": packed}
        odd = partial(ask, given(on, on.odd), headers=on.auth, **pack)
        yield f"an odd row, compressed with {packed}", odd, "422", "deferred"
    mixed = np.concatenate([on.rows[:3], on.odd])
    yield "a batch with one odd row", partial(ask, given(on, mixed), headers=on.auth), "422", "deferred"
    yield "a deadline of a microsecond", partial(ask, given(on, on.rows), headers=on.auth, timeout=1), "504"
    many = {"x-api-key": on.slow_key}
    yield "a caller who is too fast", partial(ask, given(on, on.rows), headers=many), "429"


async def in_part(client: Any, on: Target, binary: bool) -> None:
    x = np.concatenate([on.rows[:2], on.odd, on.rows[2:3]])
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in (on.output, "fs_row_outcome")]
    result = await settle(client.infer(on.model, given(on, x), outputs=outputs, headers=on.auth))
    ends = [text_of(end) for end in result.as_numpy("fs_row_outcome")]
    same("row outcomes", ends, ["served", "served", "deferred", "served"])
    got = result.as_numpy(on.output)
    hold(np.isnan(got[2]).all(), "the withheld row is not blank")
    same_bits(got[[0, 1, 3]], on.expected[:3])
