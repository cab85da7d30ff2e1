"""The gRPC door of a plane, and a client that shows what came back, on the plane's own event loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from planes import Plane
from served import free_port

from fallbacks.oip import open_inference_pb2 as pb
from gateway.grpc import Listener, grpc_server
from gateway.grpc_methods import SERVICE
from gateway.proxies import Proxies


@dataclass(frozen=True)
class Got:
    """What a call came back with: a message, or a code and words; and the trailing metadata of either."""

    code: str
    words: str
    trailers: dict[str, str]
    message: Any | None
    raw: bytes

    @property
    def end(self) -> tuple[str, str, str]:
        """Code, outcome, reason."""
        return self.code, self.trailers["x-failsafe-outcome"], self.trailers["x-failsafe-reason"]

    def everything(self) -> list[bytes]:
        """Whatever a caller can read."""
        return [self.code.encode(), self.words.encode(), repr(self.trailers).encode(), self.raw]

    def tensor(self, name: str = "probabilities") -> NDArray[Any]:
        """One FP32 output, raw or typed."""
        assert self.message is not None, (self.code, self.words)
        for i, output in enumerate(self.message.outputs):
            if output.name == name:
                parts = self.message.raw_output_contents
                flat = (
                    np.frombuffer(parts[i], "<f4")
                    if parts
                    else np.array(output.contents.fp32_contents, "<f4")
                )
                return flat.reshape(tuple(output.shape))
        raise AssertionError(f"no output {name!r}")


@dataclass(frozen=True)
class GrpcDoor:
    """A channel to the door; every call is awaited on the loop that serves."""

    channel: grpc.aio.Channel
    address: str

    async def call(
        self,
        method: str,
        message: Any,
        answer: Any,
        key: str | None = None,
        *,
        metadata: Sequence[tuple[str, str]] = (),
        within_s: float | None = 10.0,
        compression: grpc.Compression | None = None,
    ) -> Got:
        """One call: `message` is a protobuf message or bytes."""
        path = method if method.startswith("/") else f"/{SERVICE}/{method}"
        stub = self.channel.unary_unary(path)
        headers = [*metadata, *([("authorization", f"Bearer {key}")] if key else [])]
        sent = message if isinstance(message, bytes) else message.SerializeToString()
        call = stub(sent, metadata=headers, timeout=within_s, compression=compression)
        try:
            raw = await call
        except grpc.aio.AioRpcError as error:
            trailers = {str(name): str(value) for name, value in error.trailing_metadata() or ()}
            return Got(error.code().name, error.details() or "", trailers, None, b"")
        trailers = {str(name): str(value) for name, value in await call.trailing_metadata()}
        return Got("OK", "", trailers, answer.FromString(raw), raw)

    async def infer(self, message: Any, key: str | None = None, **more: Any) -> Got:
        return await self.call("ModelInfer", message, pb.ModelInferResponse, key, **more)


def message_of(
    x: NDArray[np.float32], *, raw: bool = True, outputs: Sequence[str] = (), model: str = "letters"
) -> Any:
    """A ModelInferRequest for rows of letters."""
    message = pb.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="attributes", datatype="FP32", shape=x.shape)
    if raw:
        message.raw_input_contents.append(x.tobytes())
    else:
        tensor.contents.fp32_contents.extend(x.ravel().tolist())
    for name in outputs:
        message.outputs.add(name=name)
    return message


@contextmanager
def grpc_door(plane: Plane, proxies: Proxies | None = None, max_calls: int = 1000) -> Iterator[GrpcDoor]:
    """Serves a plane's gRPC on a free port of loopback."""
    port = free_port()

    async def start() -> tuple[Any, GrpcDoor]:
        server = grpc_server(Listener(plane.app.plane, proxies), "127.0.0.1", port, max_calls)
        await server.start()
        return server, GrpcDoor(grpc.aio.insecure_channel(f"127.0.0.1:{port}"), f"127.0.0.1:{port}")

    server, door = plane.run(start)

    async def stop() -> None:
        await door.channel.close()
        await server.stop(1.0)

    try:
        yield door
    finally:
        plane.run(stop)
