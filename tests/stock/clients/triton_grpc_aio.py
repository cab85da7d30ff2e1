"""tritonclient.grpc.aio against a running gateway: `python triton_grpc_aio.py FOLDER`."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import chain

import grpc
import triton_grpc_answers as answers
import triton_grpc_refused as refusing
import triton_grpc_told as telling
from cases import Case, Target, refused, target, walk
from tritonclient.grpc.aio import InferenceServerClient


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
                telling.told(client, on),
                answers.extras(client, on),
                answers.grid(client, on),
                refusing.refusals(client, on),
                [stream],
            )
        )


asyncio.run(main())
