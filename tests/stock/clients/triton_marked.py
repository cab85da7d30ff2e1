"""tritonclient against a gateway that marks withheld rows: `python triton_marked.py FOLDER`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import triton_grpc_answers
import triton_http_answers
import tritonclient.grpc
import tritonclient.http
from cases import Case, Target, hold, marked, refused, same, same_classes, settle, target, walk
from tritonclient.utils import InferenceServerException


def http_cases(client: Any, on: Target) -> Iterator[Case]:
    for wanted in ("json", "binary", "unspecified"):
        yield f"http, {wanted}: a marked batch is read", partial(http_marked, client, on, wanted)
    for wanted in ("top3-json", "top3-binary"):
        yield f"http, {wanted}: a marked batch is read", partial(http_classes, client, on, wanted)
    yield "http: the choice is in the metadata", partial(named, client, on)
    alone = partial(client.infer, on.model, triton_http_answers.given(on, on.odd), headers=on.auth)
    yield (
        "http: a row that is withheld alone is an error",
        partial(refused, alone, InferenceServerException, "422"),
    )


def grpc_cases(client: Any, on: Target) -> Iterator[Case]:
    for wanted in ("unspecified", "asked"):
        yield f"grpc, {wanted}: a marked batch is read", partial(grpc_marked, client, on, wanted)
    alone = partial(client.infer, on.model, triton_grpc_answers.given(on, on.odd), headers=on.auth)
    yield (
        "grpc: a row that is withheld alone is an error",
        partial(refused, alone, InferenceServerException, "FAILED_PRECONDITION"),
    )


async def http_marked(client: Any, on: Target, wanted: str) -> None:
    answers = triton_http_answers
    result = client.infer(
        on.model, answers.given(on, on.mixed), outputs=answers.wanted_of(on, wanted), headers=on.auth
    )
    marked(on, result.get_response()["parameters"], result.as_numpy(on.output))


async def http_classes(client: Any, on: Target, wanted: str) -> None:
    answers = triton_http_answers
    result = client.infer(
        on.model, answers.given(on, on.mixed), outputs=answers.wanted_of(on, wanted), headers=on.auth
    )
    got = result.as_numpy(on.output)
    hold(not any(got[2]), f"the withheld row is not blank: {got[2]}")
    same_classes(got[[0, 1, 3]], on.expected[:3], on.labels, answers.TOP)


async def grpc_marked(client: Any, on: Target, wanted: str) -> None:
    answers = triton_grpc_answers
    result = client.infer(
        on.model, answers.given(on, on.mixed), outputs=answers.wanted_of(on, wanted), headers=on.auth
    )
    parameters = {name: one.string_param for name, one in result.get_response().parameters.items()}
    marked(on, parameters, result.as_numpy(on.output))


async def named(client: Any, on: Target) -> None:
    about = await settle(client.get_model_metadata(on.model, headers=on.auth))
    same("parameters", about["parameters"], {"withheld_rows": "mark"})


async def main() -> None:
    on = target()
    over_http = tritonclient.http.InferenceServerClient(on.http, connection_timeout=10, network_timeout=10)
    over_grpc = tritonclient.grpc.InferenceServerClient(on.grpc)
    await walk([*http_cases(over_http, on), *grpc_cases(over_grpc, on)])
    over_http.close()
    over_grpc.close()


asyncio.run(main())
