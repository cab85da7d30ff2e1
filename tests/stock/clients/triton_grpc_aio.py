"""tritonclient.grpc.aio against a running gateway: `python triton_grpc_aio.py FOLDER`."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import chain

import grpc
import triton_grpc_answers as answers
import triton_grpc_metadata as metadata_of_server
import triton_grpc_refused as refusing
from cases import Case, Target, refused, same, same_bits, target, walk
from tritonclient.grpc.aio import InferenceServerClient


async def at_once(client: InferenceServerClient, on: Target) -> None:
    """Each gets its own answer."""
    asked = [
        client.infer(on.model, answers.given(on, on.rows[i : i + 1]), request_id=f"{i}", headers=on.auth)
        for i in range(len(on.rows))
    ]
    for i, result in enumerate(await asyncio.gather(*asked)):
        same("id", result.get_response().id, f"{i}")
        same_bits(result.as_numpy(on.output), on.expected[i : i + 1])


async def stream_is_refused(client: InferenceServerClient, on: Target) -> None:
    """gRPC's own exception: this client wraps nothing on a stream."""
    await refused(partial(refusing.streamed, client, on), grpc.RpcError, "UNIMPLEMENTED")
    await answers.asks(client, on)


async def main() -> None:
    on = target()
    async with InferenceServerClient(on.grpc) as client:
        stream: Case = ("a stream is refused with UNIMPLEMENTED", partial(stream_is_refused, client, on))
        await walk(
            chain(
                metadata_of_server.metadata_cases(client, on),
                [("many requests at once", partial(at_once, client, on))],
                answers.extras(client, on),
                answers.grid(client, on),
                refusing.refusals(client, on),
                [stream],
            )
        )


asyncio.run(main())
