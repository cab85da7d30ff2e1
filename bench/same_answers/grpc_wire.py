"""Calls over gRPC by name and bytes, without generated clients, and everything that comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from bench.same_answers.exchange import GrpcExchange, RecordedAnswer
from fallbacks.oip import open_inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"
CLIENT_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 2**16),
)


def _clear_times(held: Any) -> None:
    """Sets the times of statistics to zero; counts stay."""
    for model in held.model_stats:
        model.last_inference = 0
        for _, duration in model.inference_stats.ListFields():
            duration.ns = 0


CANONICAL: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], None]]] = {
    f"{SERVICE}ModelInfer": (pb.ModelInferResponse.FromString, lambda _: None),
    f"{SERVICE}ModelStatistics": (pb.ModelStatisticsResponse.FromString, _clear_times),
}
"""Messages that are read and written again: protobuf writes a map in any order, and statistics hold times."""


def channel_to(port: int) -> grpc.Channel:
    """A connection that shares nothing with others."""
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=CLIENT_OPTIONS)


def call(
    channel: grpc.Channel, exchange: GrpcExchange, message: bytes, metadata: tuple[tuple[str, str], ...]
) -> RecordedAnswer:
    """What comes back: the code, the details, both kinds of metadata, the message."""
    more = {
        "timeout": exchange.timeout_s,
        "metadata": metadata,
        "compression": getattr(grpc.Compression, exchange.coding),
    }
    try:
        if exchange.stream:
            calling = channel.stream_stream(exchange.method)(iter([message]), **more)
            replies = list(calling)
        else:
            reply, calling = channel.unary_unary(exchange.method).with_call(message, **more)
            replies = [reply]
    except grpc.RpcError as error:
        calling, replies = error, []
    return (
        ("code", str(calling.code()).encode()),
        ("details", (calling.details() or "").encode()),
        ("initial metadata", _lines(calling.initial_metadata())),
        ("trailing metadata", _lines(calling.trailing_metadata())),
        *((f"message {i}", _canonical(exchange.method, reply)) for i, reply in enumerate(replies)),
    )


def _lines(pairs: Any) -> bytes:
    texts = (value if isinstance(value, bytes) else value.encode() for _, value in pairs or ())
    names = (name.encode() for name, _ in pairs or ())
    return b"\n".join(b"%b: %b" % pair for pair in zip(names, texts, strict=True))


def _canonical(method: str, message: bytes) -> bytes:
    if method not in CANONICAL:
        return message
    read, change = CANONICAL[method]
    held: Message = read(message)
    change(held)
    return held.SerializeToString(deterministic=True)
