"""tritonclient.http, which blocks, against a running gateway: `python triton_http.py FOLDER`."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import chain

import triton_http_answers as answers
import triton_http_metadata as metadata_of_server
import triton_http_refused as refusing
from cases import Target, same, same_bits, target, walk
from tritonclient.http import InferenceServerClient

CONNECTIONS = 8


async def at_once(client: InferenceServerClient, on: Target) -> None:
    """More requests than there are connections: each gets its own answer."""
    asked = [
        client.async_infer(
            on.model, answers.given(on, on.rows[i : i + 1]), request_id=f"{i}", headers=on.auth
        )
        for i in range(len(on.rows))
    ]
    for i, one in enumerate(asked):
        result = one.get_result(timeout=10)
        same("id", result.get_response()["id"], f"{i}")
        same_bits(result.as_numpy(on.output), on.expected[i : i + 1])


async def main() -> None:
    on = target()
    client = InferenceServerClient(
        on.http, concurrency=CONNECTIONS, connection_timeout=10, network_timeout=10
    )
    await walk(
        chain(
            metadata_of_server.metadata_cases(client, on),
            answers.plain(on),
            [("many requests at once", partial(at_once, client, on))],
            answers.extras(client, on),
            answers.grid(client, on),
            refusing.refusals(client, on),
        )
    )
    client.close()


asyncio.run(main())
