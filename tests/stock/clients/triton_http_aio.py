"""tritonclient.http.aio against a running gateway: `python triton_http_aio.py FOLDER`."""

from __future__ import annotations

import asyncio
from itertools import chain

import triton_http_answers as answers
import triton_http_refused as refusing
import triton_http_told as telling
from cases import target, walk
from tritonclient.http.aio import InferenceServerClient


async def main() -> None:
    on = target()
    async with InferenceServerClient(on.http, conn_timeout=10) as client:
        await walk(
            chain(
                telling.told(client, on),
                answers.extras(client, on),
                answers.grid(client, on),
                refusing.refusals(client, on),
            )
        )


asyncio.run(main())
