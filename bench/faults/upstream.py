"""A server of the Open Inference Protocol, in a process of its own, whose answers can be broken.

`python -m bench.faults.upstream MODEL.onnx NAME` prints its port. Each line on its standard input is the
fault of all later answers, and is echoed. It serves all outputs of the model, in JSON.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from fallbacks.onnx import OnnxModel
from fallbacks.predictor import ModelTensor

LINE_BYTES: Final = 2**20
SLOW: Final = "slow "
"""Seconds follow, which each answer takes longer."""
STATUSES: Final = {"500": "500 Internal Server Error", "503": "503 Unavailable", "404": "404 Not Found"}
Document = dict[str, Any]


def _first(change: Callable[[Document], None]) -> Callable[[Document], Document]:
    """Changes the first output, the probabilities."""

    def changed(document: Document) -> Document:
        change(document["outputs"][0])
        return document

    return changed


def _without_last(output: Document) -> None:
    rows, width = output["shape"]
    output["shape"] = [rows, width - 1]
    output["data"] = np.reshape(output["data"], (rows, width))[:, :-1].ravel().tolist()


ANSWERS: Final[Mapping[str, Callable[[Document], Document]]] = {
    "wrong ids": lambda document: {**document, "id": "another"},
    "NaN": _first(lambda output: output.update(data=[None] * len(output["data"]))),
    "wrong dtype": _first(lambda output: output.update(datatype="INT64")),
    "wrong shape": _first(_without_last),
    "missing rows": _first(lambda output: output.update(data=output["data"][: -output["shape"][1]])),
    "texts": _first(lambda output: output.update(data=["high"] * len(output["data"]))),
    "missing output": lambda document: {**document, "outputs": document["outputs"][1:]},
    "no outputs": lambda document: {"id": document["id"], "model_name": document["model_name"]},
}
"""What is answered instead of the model's outputs."""


class UpstreamServer:
    """Serves one model. fault: of its answers to rows; empty for none."""

    def __init__(self, model: OnnxModel, name: str) -> None:
        self._model, self._name = model, name
        self.fault = ""
        self._stuck: Mapping[str, Any] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next((line for line in head.split("\r\n") if line.startswith("content-length:")), "")
                body = await reader.readexactly(int(length.partition(":")[2] or 0))
                await self._reply(head, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _reply(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        infers = head.startswith("post")
        if infers and self.fault == "hang":
            await asyncio.sleep(3600)
        if infers and self.fault.startswith(SLOW):
            await asyncio.sleep(float(self.fault.removeprefix(SLOW)))
        if infers and self.fault in STATUSES:
            return _send(writer, STATUSES[self.fault], orjson.dumps({"error": "broken on purpose"}))
        if infers and self.fault == "no JSON":
            return _send(writer, "200 OK", b"\x00\xff not JSON")
        if infers and self.fault == "empty":
            return _send(writer, "200 OK", b"")
        document = self._outputs(orjson.loads(body)) if infers else self._metadata(head.split()[1])
        return _send(writer, "200 OK", orjson.dumps(document))

    def _metadata(self, path: str) -> Document:
        if path == "/v2":
            return {"name": "upstream", "version": "1", "extensions": []}
        return {
            "name": self._name,
            "inputs": _described(self._model.inputs),
            "outputs": _described(self._model.outputs),
        }

    def _outputs(self, asked: Document) -> Document:
        x = {
            one["name"]: np.asarray(one["data"], np.float32).reshape(one["shape"]) for one in asked["inputs"]
        }
        found = self._model.run(x)
        self._stuck = self._stuck or {name: array[:1] for name, array in found.items()}
        rows = len(next(iter(x.values())))
        if self.fault == "stuck":
            found = {name: np.repeat(array, rows, axis=0) for name, array in self._stuck.items()}
        outputs = [
            {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
            for name, array in found.items()
        ]
        document = {"id": asked.get("id"), "model_name": self._name, "outputs": outputs}
        return ANSWERS[self.fault](document) if self.fault in ANSWERS else document


def _described(tensors: Sequence[ModelTensor]) -> list[Document]:
    return [
        {"name": one.name, "datatype": "FP32", "shape": [-1 if size is None else size for size in one.shape]}
        for one in tensors
    ]


def _send(writer: asyncio.StreamWriter, status: str, body: bytes) -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def main(path: Path, name: str) -> None:
    """Until its input ends."""
    server = UpstreamServer(OnnxModel.load(path), name)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    reader = asyncio.StreamReader(LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(listening.sockets[0].getsockname()[1], flush=True)
    while line := await reader.readline():
        server.fault = line.decode().strip()
        print(server.fault, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
