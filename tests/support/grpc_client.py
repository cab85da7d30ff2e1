"""A client of the data plane over gRPC, and its calls' results, checked for what clients rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from fallbacks.oip import open_inference_pb2 as pb
from gateway.access.proxies import Proxies
from gateway.access.tls import Tls
from gateway.grpc.server import LIMITS, GrpcListener
from gateway.listener.limits import Limits
from gateway.replica import bind
from gateway.serving.data_plane import DataPlane
from tests.support.data_planes import PARAMETERS, SITE, PlaneFixture

SERVICE = "inference.GRPCInferenceService"
INFER = f"/{SERVICE}/ModelInfer"
ROW_OUTCOME = "fs_row_outcome"


@dataclass(frozen=True)
class CallResult:
    """How one call ended."""

    code: str
    error: str
    trailers: dict[str, str]
    message: bytes | None = field(default=None, repr=False)

    @property
    def outcome(self) -> tuple[str, str, str, str]:
        """The code, the outcome, the reason and who answered, with all six trailers there."""
        assert all(self.trailers[f"x-failsafe-{name.replace('_', '-')}"] for name in PARAMETERS)
        named = [self.trailers[f"x-failsafe-{name}"] for name in ("outcome", "reason", "served-by")]
        return self.code, named[0], named[1], named[2]

    @property
    def response(self) -> Any:
        assert self.message is not None, f"{self.code}: {self.error}"
        response = pb.ModelInferResponse.FromString(self.message)
        for name in PARAMETERS:
            value = response.parameters[f"fs_{name}"].string_param
            assert value == self.trailers[f"x-failsafe-{name.replace('_', '-')}"]
        return response

    def tensor(self, at: int = 0) -> NDArray[Any]:
        """One FP32 output, raw or typed."""
        response = self.response
        output = response.outputs[at]
        if response.raw_output_contents:
            flat = np.frombuffer(response.raw_output_contents[at], "<f4")
        else:
            flat = np.array(output.contents.fp32_contents, "<f4")
        return flat.reshape(list(output.shape))


def request_of(x: NDArray[np.float32], raw: bool = True, outputs: Sequence[str] = (), **members: Any) -> Any:
    """A ModelInferRequest for rows of letters."""
    message = pb.ModelInferRequest(**({"model_name": "letters"} | members))
    tensor = message.inputs.add(name="attributes", datatype="FP32", shape=x.shape)
    if raw:
        message.raw_input_contents.append(x.tobytes())
    else:
        tensor.contents.fp32_contents.extend(x.ravel().tolist())
    for name in outputs:
        message.outputs.add(name=name)
    return message


@dataclass
class GrpcClient:
    """A client over one channel. stop: stops the server behind it."""

    channel: grpc.aio.Channel
    target: str
    key: str | None = None
    stop: Callable[[float], Awaitable[None]] | None = None

    def metadata(self, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [*headers, *([("authorization", f"Bearer {self.key}")] if self.key else [])]

    async def __call__(
        self, method: str, message: Any = b"", headers: Sequence[tuple[str, str]] = (), **how: Any
    ) -> CallResult:
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        how.setdefault("timeout", 30)
        return await result_of(self.channel.unary_unary(method)(raw, metadata=self.metadata(headers), **how))

    async def infer(self, x: NDArray[np.float32], raw: bool = True, **how: Any) -> CallResult:
        headers = how.pop("headers", ())
        return await self(INFER, request_of(x, raw, **how), headers)


async def result_of(call: Any) -> CallResult:
    """How a call ends, whatever its kind."""
    message: bytes | None = None
    try:
        message = await call
    except grpc.aio.AioRpcError:
        pass
    trailers = dict(await call.trailing_metadata() or ())
    return CallResult((await call.code()).name, await call.details() or "", trailers, message)


def listener_of(
    plane: DataPlane,
    calls: int = 64,
    limits: Limits = LIMITS,
    proxies: Proxies | None = None,
    tls: Tls | None = None,
) -> GrpcListener:
    """A listener of gRPC over a data plane, on the running loop."""
    repository = plane.repository
    path = repository.run / f"{repository.replica}.grpc"
    return GrpcListener(plane, path, limits, site=SITE, max_calls=calls, proxies=proxies, tls=tls)


@asynccontextmanager
async def grpc_client(
    plane: PlaneFixture,
    key: str | None = "ada",
    calls: int = 64,
    limits: Limits = LIMITS,
    proxies: Proxies | None = None,
) -> AsyncIterator[GrpcClient]:
    """A client of a server on the running loop. key: itself, or the name of a caller of the fixture."""
    own = bind("127.0.0.1", 0)
    address = f"127.0.0.1:{own.getsockname()[1]}"
    server = listener_of(plane.handler.plane, calls, limits, proxies)
    await server.start(own)
    try:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            own_key = plane.keys.get(key, key) if key else None
            yield GrpcClient(channel, address, own_key, server.stop)
    finally:
        await server.stop(0)
