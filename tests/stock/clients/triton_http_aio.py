"""tritonclient.http.aio against a running gateway: `python triton_http_aio.py FOLDER`."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import chain

import triton_http_answers as answers
import triton_http_metadata as metadata_of_server
import triton_http_refused as refusing
from cases import Target, same, same_bits, target, walk
from tritonclient.http.aio import InferenceServerClient


async def at_once(client: InferenceServerClient, on: Target) -> None:
    """Each gets its own answer."""
    asked = [
        client.infer(on.model, answers.given(on, on.rows[i : i + 1]), request_id=f"{i}", headers=on.auth)
        for i in range(len(on.rows))
    ]
    for i, result in enumerate(await asyncio.gather(*asked)):
        same("id", result.get_response()["id"], f"{i}")
        same_bits(result.as_numpy(on.output), on.expected[i : i + 1])


async def main() -> None:
    on = target()
    async with InferenceServerClient(on.http, conn_timeout=10) as client:
        await walk(
            chain(
                metadata_of_server.metadata_cases(client, on),
                [("many requests at once", partial(at_once, client, on))],
                answers.extras(client, on),
                answers.grid(client, on),
                refusing.refusals(client, on),
            )
        )


asyncio.run(main())
