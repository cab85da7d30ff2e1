"""An upstream over gRPC: raw contents out, raw or typed contents back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio

from fallbacks.oip.address import RemoteModel
from fallbacks.oip.description import ModelDescription
from fallbacks.oip.errors import (
    RequestRefused,
    UnexpectedAnswer,
    UpstreamFailed,
    UpstreamUnreachable,
    excerpt,
)
from fallbacks.oip.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
)
from fallbacks.oip.tensors import BINARY_ONLY, Array, UpstreamTensor
from fallbacks.predictor import Tensors

SERVICE: Final = "/inference.GRPCInferenceService/"
CHANNEL_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a channel of another loop must not share its backoff
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),  # instead of two minutes: a restarted upstream is used soon
    ("grpc.enable_retries", 0),  # the ladder decides what follows a failure
)
_FAILURES: Final = {
    grpc.StatusCode.UNAVAILABLE: UpstreamUnreachable,
    **dict.fromkeys(
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.OUT_OF_RANGE,
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.UNKNOWN,
        ),
        RequestRefused,
    ),
}
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "UINT64": "uint64_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


class GrpcClient:
    """One channel, bound to the running loop."""

    def __init__(self, remote: RemoteModel, max_answer_bytes: int) -> None:
        options = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", max_answer_bytes))
        if remote.address.encrypted:
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(remote.address.authority, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(remote.address.authority, options)
        self._remote = remote
        self._metadata = (("authorization", f"Bearer {remote.token}"),) if remote.token else None
        self._ids = itertools.count(1)
        self._describe = self._method("ModelMetadata", ModelMetadataRequest, ModelMetadataResponse)
        self._infer = self._method("ModelInfer", ModelInferRequest, ModelInferResponse)

    def _method(self, name: str, request: Any, response: Any) -> Callable[..., Any]:
        method: Callable[..., Any] = self._channel.unary_unary(
            SERVICE + name,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return method

    async def describe(self, timeout_s: float) -> ModelDescription:
        request = ModelMetadataRequest(name=self._remote.model, version=self._remote.version or "")
        metadata: ModelMetadataResponse = await self._call(self._describe, request, timeout_s)
        return ModelDescription.parse(
            [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs],
            [(one.name, one.datatype, list(one.shape)) for one in metadata.outputs],
        )

    async def infer(
        self, inputs: Tensors, description: ModelDescription, timeout_s: float
    ) -> dict[str, Array]:
        request = ModelInferRequest(
            model_name=self._remote.model,
            model_version=self._remote.version or "",
            id=str(next(self._ids)),
            inputs=[
                ModelInferRequest.InferInputTensor(
                    name=one.name, datatype=one.datatype, shape=inputs[one.name].shape
                )
                for one in description.inputs
            ],
            outputs=[
                ModelInferRequest.InferRequestedOutputTensor(name=one.name) for one in description.outputs
            ],
            raw_input_contents=[one.to_bytes(inputs[one.name]) for one in description.inputs],
        )
        response: ModelInferResponse = await self._call(self._infer, request, timeout_s)
        return decode_grpc_response(
            response, request.id, description, len(inputs[description.inputs[0].name])
        )

    async def _call(self, method: Callable[..., Any], request: object, timeout_s: float) -> Any:
        try:
            return await method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            what = f"{self._remote}: {error.code().name}: {excerpt(error.details() or '')}"
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError(what) from None
            raise _FAILURES.get(error.code(), UpstreamFailed)(what, error.code().name) from None

    async def close(self) -> None:
        await self._channel.close()


def decode_grpc_response(
    response: ModelInferResponse, request_id: str, description: ModelDescription, n: int
) -> dict[str, Array]:
    """Every declared output, n rows each; others are skipped. Raises UnexpectedAnswer."""
    raw = response.raw_output_contents
    if response.id not in ("", request_id):
        raise UnexpectedAnswer("the answer is to another request")
    if raw and len(raw) != len(response.outputs):
        raise UnexpectedAnswer(f"{len(raw)} raw contents for {len(response.outputs)} outputs")
    declared = description.require_outputs([output.name for output in response.outputs])
    found = {}
    for i, output in enumerate(response.outputs):
        if (tensor := declared.get(output.name)) is None:
            continue
        shape = tensor.checked_shape(output.datatype, list(output.shape), n)
        found[tensor.name] = (
            tensor.from_bytes(raw[i], shape) if raw else _from_contents(tensor, output.contents, shape)
        )
    return found


def _from_contents(tensor: UpstreamTensor, contents: Any, shape: tuple[int, ...]) -> Array:
    if tensor.datatype in BINARY_ONLY:
        raise UnexpectedAnswer(f"{tensor.name!r}: {tensor.datatype} without raw contents")
    return tensor.from_list(list(getattr(contents, _CONTENTS[tensor.datatype])), shape)
