"""What both protocols offer: describe a model, and ask it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

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


async def ask(
    client: Client, inputs: Tensors, like: Described, most_rows: int, left_s: Callable[[], float]
) -> dict[str, Array]:
    """As `infer` for any number of rows, at most `most_rows` at a time, while time is left."""
    rows = len(inputs[like.inputs[0].name])
    parts = []
    for at in range(0, max(rows, 1), most_rows):
        some = {name: array[at : at + most_rows] for name, array in inputs.items()}
        parts.append(await client.infer(some, like, left_s()))
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def connect(remote: Remote, answer_bytes: int = MAX_BYTES) -> Client:
    """A client for the protocol of the address. `answer_bytes`: the largest answer it will read."""
    return GrpcClient(remote, answer_bytes) if remote.address.grpc else HttpClient(remote, answer_bytes)
