"""An upstream over gRPC: raw contents out, raw or typed contents back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio

from fallbacks.oip.address import Remote
from fallbacks.oip.described import Described
from fallbacks.oip.errors import Unanswered, Unreachable, WrongAnswer, excerpt
from fallbacks.oip.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
)
from fallbacks.oip.tensors import BINARY_ONLY, Array, Declared
from fallbacks.predictor import Tensors

SERVICE: Final = "/inference.GRPCInferenceService/"
OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a channel of another loop must not share this one's backoff
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),  # not two minutes: an upstream that is back is wanted back
    ("grpc.enable_retries", 0),  # the ladder decides what follows a failure
)
_TYPED: Final = {
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

    def __init__(self, remote: Remote, answer_bytes: int) -> None:
        options = (*OPTIONS, ("grpc.max_receive_message_length", answer_bytes))
        if remote.address.encrypted:
            secrets = grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(remote.address.authority, secrets, options)
        else:
            self._channel = grpc.aio.insecure_channel(remote.address.authority, options)
        self._remote = remote
        self._metadata = (("authorization", f"Bearer {remote.token}"),) if remote.token else None
        self._ids = itertools.count(1)
        self._metadata_of = self._method("ModelMetadata", ModelMetadataRequest, ModelMetadataResponse)
        self._infer = self._method("ModelInfer", ModelInferRequest, ModelInferResponse)

    def _method(self, name: str, request: Any, response: Any) -> Callable[..., Any]:
        method: Callable[..., Any] = self._channel.unary_unary(
            SERVICE + name,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return method

    async def describe(self, timeout_s: float) -> Described:
        request = ModelMetadataRequest(name=self._remote.model, version=self._remote.version or "")
        told: ModelMetadataResponse = await self._call(self._metadata_of, request, timeout_s)
        return Described.of(
            [(one.name, one.datatype, list(one.shape)) for one in told.inputs],
            [(one.name, one.datatype, list(one.shape)) for one in told.outputs],
        )

    async def infer(self, inputs: Tensors, like: Described, timeout_s: float) -> dict[str, Array]:
        request = ModelInferRequest(
            model_name=self._remote.model,
            model_version=self._remote.version or "",
            id=str(next(self._ids)),
            inputs=[
                ModelInferRequest.InferInputTensor(
                    name=one.name, datatype=one.datatype, shape=inputs[one.name].shape
                )
                for one in like.inputs
            ],
            outputs=[ModelInferRequest.InferRequestedOutputTensor(name=one.name) for one in like.outputs],
            raw_input_contents=[one.to_bytes(inputs[one.name]) for one in like.inputs],
        )
        answer: ModelInferResponse = await self._call(self._infer, request, timeout_s)
        return read_answer(answer, request.id, like, len(inputs[like.inputs[0].name]))

    async def _call(self, method: Callable[..., Any], request: object, timeout_s: float) -> Any:
        try:
            return await method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            told = f"{self._remote}: {error.code().name}: {excerpt(error.details() or '')}"
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError(told) from None
            kind = Unreachable if error.code() is grpc.StatusCode.UNAVAILABLE else Unanswered
            raise kind(told) from None

    async def close(self) -> None:
        await self._channel.close()


def read_answer(answer: ModelInferResponse, asked: str, like: Described, n: int) -> dict[str, Array]:
    """Every declared output, n rows each; others are skipped. Raises WrongAnswer."""
    raw = answer.raw_output_contents
    if answer.id not in ("", asked):
        raise WrongAnswer("the answer is to another request")
    if raw and len(raw) != len(answer.outputs):
        raise WrongAnswer(f"{len(raw)} raw contents for {len(answer.outputs)} outputs")
    declared = like.asked_for([output.name for output in answer.outputs])
    found = {}
    for i, output in enumerate(answer.outputs):
        if (one := declared.get(output.name)) is None:
            continue
        shape = one.fits(output.datatype, list(output.shape), n)
        found[one.name] = one.from_bytes(raw[i], shape) if raw else _typed(one, output.contents, shape)
    return found


def _typed(one: Declared, contents: Any, shape: tuple[int, ...]) -> Array:
    if one.datatype in BINARY_ONLY:
        raise WrongAnswer(f"{one.name!r}: {one.datatype} without raw contents")
    return one.from_list(list(getattr(contents, _TYPED[one.datatype])), shape)
