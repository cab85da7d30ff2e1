"""What both protocols offer: describe a model, and ask it."""

from __future__ import annotations

from typing import Protocol

from fallbacks.oip.address import Remote
from fallbacks.oip.described import Described
from fallbacks.oip.grpc import GrpcClient
from fallbacks.oip.http import HttpClient
from fallbacks.oip.tensors import MAX_BYTES, Array
from fallbacks.predictor import Tensors


class Client(Protocol):
    """One model over connections of one event loop, made when they are first needed.

    Both questions raise Unanswered, Unreachable, WrongAnswer, or TimeoutError when `timeout_s` has passed;
    cancelling one ends the call. Names are the server's.
    """

    async def describe(self, timeout_s: float) -> Described: ...

    async def infer(self, inputs: Tensors, like: Described, timeout_s: float) -> dict[str, Array]:
        """Every declared output for these rows, each exactly of the declared form."""

    async def close(self) -> None: ...


def connect(remote: Remote, answer_bytes: int = MAX_BYTES) -> Client:
    """A client for the protocol of the address. `answer_bytes`: the largest answer it will read."""
    return GrpcClient(remote, answer_bytes) if remote.address.grpc else HttpClient(remote, answer_bytes)
