"""tritonclient.http, which blocks, against a running gateway: `python triton_http.py FOLDER`."""

from __future__ import annotations

import asyncio
from itertools import chain

import triton_http_answers as answers
import triton_http_refused as refusing
import triton_http_told as telling
from cases import target, walk
from tritonclient.http import InferenceServerClient


async def main() -> None:
    on = target()
    client = InferenceServerClient(on.http, connection_timeout=10, network_timeout=10)
    await walk(
        chain(
            telling.told(client, on),
            answers.plain(on),
            answers.extras(client, on),
            answers.grid(client, on),
            refusing.refusals(client, on),
        )
    )
    client.close()


asyncio.run(main())
