"""tritonclient.grpc, which blocks, against a running gateway: `python triton_grpc.py FOLDER`."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import chain

import triton_grpc_answers as answers
import triton_grpc_refused as refusing
import triton_grpc_told as telling
from cases import target, walk
from tritonclient.grpc import InferenceServerClient


async def main() -> None:
    on = target()
    with InferenceServerClient(on.grpc) as client:
        stream = partial(refusing.called_back, client, on)
        refused = partial(refusing.survives, client, on, stream, "UNIMPLEMENTED")
        await walk(
            chain(
                telling.told(client, on),
                answers.extras(client, on),
                answers.grid(client, on),
                refusing.refusals(client, on),
                [("a stream is refused with UNIMPLEMENTED", refused)],
            )
        )


asyncio.run(main())
