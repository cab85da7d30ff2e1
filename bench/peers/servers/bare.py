"""The baseline: the least code between a socket and the model, without any check.

Raw ASGI on uvicorn (uvloop, httptools), orjson, inference inline in the event loop. Whatever a server does
beyond this is what its users pay for its features.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import orjson
import uvicorn
from onnx_session import open_session

BINARY = b"inference-header-content-length"
OUTPUT = "probabilities"
session = open_session()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Every path and method is the model's infer."""
    message = await receive()
    body = message["body"]
    if message["more_body"]:
        parts = [body]
        while message["more_body"]:
            message = await receive()
            parts.append(message["body"])
        body = b"".join(parts)
    for name, value in scope["headers"]:
        if name == BINARY:
            headers, answer = infer_binary(body, int(value))
            break
    else:
        headers, answer = infer_json(body)
    headers.append((b"content-length", b"%d" % len(answer)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def infer_json(body: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """JSON in, JSON out."""
    tensor = orjson.loads(body)["inputs"][0]
    y = predict(tensor["name"], np.array(tensor["data"], np.float32).reshape(tensor["shape"]))
    output = {"name": OUTPUT, "datatype": "FP32", "shape": y.shape, "data": y.ravel()}
    answer = {"model_name": "fashion", "outputs": [output]}
    return [(b"content-type", b"application/json")], orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def infer_binary(body: bytes, length: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The binary tensor extension, both ways: a JSON header of so many bytes, then the numbers."""
    tensor = orjson.loads(body[:length])["inputs"][0]
    y = predict(tensor["name"], np.frombuffer(body, np.float32, offset=length).reshape(tensor["shape"]))
    raw = y.tobytes()
    output = {
        "name": OUTPUT,
        "datatype": "FP32",
        "shape": y.shape,
        "parameters": {"binary_data_size": len(raw)},
    }
    header = orjson.dumps({"model_name": "fashion", "outputs": [output]})
    kind = (b"content-type", b"application/octet-stream")
    return [kind, (BINARY, b"%d" % len(header))], header + raw


def predict(name: str, x: np.ndarray) -> np.ndarray:
    """The one output that callers see."""
    return session.run([OUTPUT], {name: x})[0]


if __name__ == "__main__":
    port = int(os.environ["PEER_PORT"])
    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="none",
        backlog=2048,
    )
