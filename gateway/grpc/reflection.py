"""Server reflection (`grpc.reflection`), by which tools such as grpcurl learn methods and messages.

It describes the protocol, which is the same for every deployment, to callers with a key for metadata. Version
1 has the messages of `v1alpha`; both are served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from gateway.core.errors import InvalidRequest, Problem
from gateway.grpc.methods import HEALTH, SERVICE

NAMES = tuple(f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha"))
METHODS = frozenset(f"/{name}/ServerReflectionInfo" for name in NAMES)
MAX_QUESTIONS = 1024
"""Of one call: a tool asks for each service and each file once."""
_SERVICER = aio.ReflectionServicer((SERVICE, HEALTH, NAMES[1]))


async def answers(read: Callable[[], Awaitable[bytes | None]]) -> AsyncIterator[bytes]:
    """The answers to the questions of a call, in order.

    Args:    read: the next message; None after the last.
    Raises:  InvalidRequest.
    """
    async for answer in _SERVICER.ServerReflectionInfo(_questions(read), None):
        yield answer.SerializeToString()


async def _questions(
    read: Callable[[], Awaitable[bytes | None]],
) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    for _ in range(MAX_QUESTIONS):
        raw = await read()
        if raw is None:
            return
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(raw)
        except DecodeError:
            raise InvalidRequest([Problem("", "this is no ServerReflectionRequest")]) from None
    raise InvalidRequest([Problem("", f"at most {MAX_QUESTIONS} questions are taken in a call")])
