"""tritonclient.grpc, which blocks, against a running gateway: `python triton_grpc.py FOLDER`."""

from __future__ import annotations

import asyncio
import queue
from functools import partial
from itertools import chain

import triton_grpc_answers as answers
import triton_grpc_metadata as metadata_of_server
import triton_grpc_refused as refusing
from cases import Target, hold, same, same_bits, target, walk
from tritonclient.grpc import InferenceServerClient, InferResult


async def at_once(client: InferenceServerClient, on: Target) -> None:
    """Each callback gets the answer of its own request."""
    came: queue.Queue[tuple[int, InferResult | None, Exception | None]] = queue.Queue()

    def callback(i: int, result: InferResult | None, error: Exception | None) -> None:
        came.put((i, result, error))

    for i in range(len(on.rows)):
        x, back = answers.given(on, on.rows[i : i + 1]), partial(callback, i)
        client.async_infer(on.model, x, back, request_id=f"{i}", headers=on.auth, client_timeout=10)
    for _ in range(len(on.rows)):
        i, result, error = came.get(timeout=10)
        hold(error is None, f"{error}")
        same("id", result.get_response().id, f"{i}")
        same_bits(result.as_numpy(on.output), on.expected[i : i + 1])


async def main() -> None:
    on = target()
    with InferenceServerClient(on.grpc) as client:
        stream = partial(refusing.called_back, client, on)
        refused = partial(refusing.survives, client, on, stream, "UNIMPLEMENTED")
        await walk(
            chain(
                metadata_of_server.metadata_cases(client, on),
                [("many requests at once", partial(at_once, client, on))],
                answers.extras(client, on),
                answers.grid(client, on),
                refusing.refusals(client, on),
                [("a stream is refused with UNIMPLEMENTED", refused)],
            )
        )


asyncio.run(main())
