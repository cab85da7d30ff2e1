"""What the clients of both protocols offer: the description of a model, and its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from fallbacks.oip.address import RemoteModel
from fallbacks.oip.description import ModelDescription
from fallbacks.oip.grpc import GrpcClient
from fallbacks.oip.http import HttpClient
from fallbacks.oip.tensors import MAX_ANSWER_BYTES, Array
from fallbacks.predictor import Tensors


class UpstreamClient(Protocol):
    """One model over connections of one event loop, made when they are first needed.

    Both calls raise UpstreamFailed, UpstreamUnreachable, UnexpectedAnswer, or TimeoutError after `timeout_s`;
    cancelling one ends the call at the server too. Tensor names are the server's.
    """

    async def describe(self, timeout_s: float) -> ModelDescription: ...

    async def infer(
        self, inputs: Tensors, description: ModelDescription, timeout_s: float
    ) -> dict[str, Array]:
        """Every declared output for these rows, each exactly of the declared form."""

    async def close(self) -> None: ...


async def infer_in_parts(
    client: UpstreamClient,
    inputs: Tensors,
    description: ModelDescription,
    max_rows: int,
    time_left: Callable[[], float],
) -> dict[str, Array]:
    """As `infer` for any number of rows, at most `max_rows` a call, each within `time_left()` seconds."""
    rows = len(inputs[description.inputs[0].name])
    parts = []
    for at in range(0, max(rows, 1), max_rows):
        part = {name: array[at : at + max_rows] for name, array in inputs.items()}
        parts.append(await client.infer(part, description, time_left()))
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def connect(remote: RemoteModel, max_answer_bytes: int = MAX_ANSWER_BYTES) -> UpstreamClient:
    """A client for the protocol of the address. `max_answer_bytes`: the largest answer that it reads."""
    return (
        GrpcClient(remote, max_answer_bytes) if remote.address.grpc else HttpClient(remote, max_answer_bytes)
    )
