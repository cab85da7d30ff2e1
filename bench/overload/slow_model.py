"""A model server that takes 60 ms for 32 rows and hardly any CPU: `python -m bench.overload.slow_model PORT`.

It speaks the Open Inference Protocol in JSON. It makes one pass at a time, as one accelerator does: 5 ms, and
1.7 ms a row. What a gateway loses in front of it is then lost in waiting, and not to a processor that both
share. The answer follows from the first number of a row alone: p1 is that number.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson
import uvicorn

NAME, COLUMNS = "slow", 3
PASS_S, ROW_S = 0.005, 0.055 / 32
METADATA = {
    "name": NAME,
    "platform": "bench",
    "versions": ["1"],
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, COLUMNS]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
}
SERVER = {"name": "slow-model", "version": "1", "extensions": []}
HEADERS = [(b"content-type", b"application/json")]


def answer_of(body: bytes) -> tuple[bytes, int]:
    """The reply to an infer request in JSON, and its number of rows."""
    tensor = orjson.loads(body)["inputs"][0]
    count = tensor["shape"][0]
    data = tensor["data"]
    rows = data if isinstance(data[0], list) else [data[i * COLUMNS :][:COLUMNS] for i in range(count)]
    values = [p for row in rows for p in (1.0 - row[0], float(row[0]))]
    output = {"name": "probabilities", "datatype": "FP32", "shape": [count, 2], "data": values}
    return orjson.dumps({"model_name": NAME, "outputs": [output]}), count


class SlowModel:
    """The server's ASGI application. Passes wait for each other in the order in which they came."""

    def __init__(self) -> None:
        self._pass = asyncio.Lock()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            answer, rows = answer_of(await _body(receive))
            async with self._pass:
                await asyncio.sleep(PASS_S + rows * ROW_S)
        else:
            answer = orjson.dumps(SERVER if scope["path"] == "/v2" else METADATA)
        headers = [*HEADERS, (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def _body(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


if __name__ == "__main__":
    uvicorn.run(SlowModel(), port=int(sys.argv[1]), lifespan="off", log_level="warning", access_log=False)
