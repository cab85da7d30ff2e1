"""A model that lives in another server, as a predictor like any other.

Its answers are used only once it is verified to be the model that was calibrated: the first call, and the
first one after the server was unreachable, begins with the probe rows. So a server that is down when the
gateway starts, or that comes back with another model, fails its rung and never answers unverified. A model
that is exchanged while the server stays reachable is noticed within about a minute: a later call sends the
probe rows again, concurrently. One that answers different rows alike is verified before such an answer is
used.

Each call runs in a task of its own. The gateway starts a forward pass before it waits for it, and timeouts of
asyncio and of httpx interrupt the task in which they were set, wherever that waits by then.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from fallbacks.oip.address import RemoteModel
from fallbacks.oip.client import UpstreamClient, connect, infer_in_parts
from fallbacks.oip.errors import RequestRefused, UnexpectedAnswer, UpstreamFailed, UpstreamUnreachable
from fallbacks.oip.run_in_thread import run_in_thread
from fallbacks.oip.stored_upstream import StoredUpstream
from fallbacks.oip.tensors import UPSTREAM_DTYPES, Array, max_answer_bytes
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import CallerDeadlineExceeded, ModelRaised, ModelTensor, Tensors
from fallbacks.stuck import StuckOutput

MAX_CALL_S: Final = 60.0
VERIFY_EVERY_S: Final = 60.0
CLOCK_SKEW_S: Final = 0.005
"""How much earlier than by the loop's clock a deadline may pass by the server's clock, or by a timer."""


class UpstreamModel:
    """A predictor over one model of one server, with an optional local encoder beside it.

    Args:    names: local name of an input or output, to the server's name. encoder: runs on the same rows
             concurrently; its outputs are added to the server's. max_rows: the most rows of one request.
             call_deadline: when (loop time) the current call must have its answer, and whether the caller's
             deadline sets that rather than the model's own budget.
    Raises:  ValueError for names or an encoder that do not fit the server's model.
    """

    def __init__(
        self,
        remote: RemoteModel,
        stored: StoredUpstream,
        *,
        names: Mapping[str, str],
        encoder: OnnxModel | None,
        max_rows: int,
        call_deadline: Callable[[], tuple[float, bool]],
    ) -> None:
        inputs, outputs = stored.description.inputs, stored.description.outputs
        local = _local_names(names, [tensor.name for tensor in (*inputs, *outputs)])
        self._local_outputs = {tensor.name: local[tensor.name] for tensor in outputs}
        self._server_inputs = {local[tensor.name]: tensor.name for tensor in inputs}
        self.inputs = tuple(tensor.as_model_tensor(local[tensor.name]) for tensor in inputs)
        self.outputs = tuple(tensor.as_model_tensor(local[tensor.name]) for tensor in outputs)
        self.digest = stored.digest
        if encoder is not None:
            _require_fit(encoder, self.inputs, self.outputs)
            self.outputs += encoder.outputs
            self.digest = hashlib.sha256(f"{stored.digest} {encoder.digest}".encode()).hexdigest()
        self._remote, self._stored, self._encoder = remote, stored, encoder
        self._max_rows, self._call_deadline = max_rows, call_deadline
        self._max_answer_bytes = max_answer_bytes(outputs, max_rows)
        self._stuck = StuckOutput([one.name for one in outputs if UPSTREAM_DTYPES[one.datatype].kind == "f"])
        self._verified, self._verify_again_at_s = False, math.inf
        self._verifying: asyncio.Task[None] | None = None
        self._client: UpstreamClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """All outputs, by local name. Inputs that the model does not declare are ignored.

        Raises: ValueError for a missing input, ModelRaised where the server refuses or fails on the rows,
                UpstreamFailed, UnexpectedAnswer, TimeoutError after the deadline, or CallerDeadlineExceeded
                where the caller's deadline set that.
        Cost:   one round trip for `max_rows` rows; two more the first time.
        """
        deadline_s, set_by_caller = self._call_deadline()
        call = asyncio.create_task(self._answer(inputs, deadline_s))
        try:
            return await call
        except (UpstreamFailed, TimeoutError) as error:
            if set_by_caller and asyncio.get_running_loop().time() >= deadline_s - CLOCK_SKEW_S:
                raise CallerDeadlineExceeded(f"{self._remote}: {error}") from error
            raise
        finally:
            call.cancel()  # if this coroutine was cancelled; does nothing to a task that has ended

    async def _answer(self, inputs: Tensors, deadline_s: float) -> Tensors:
        if self._closed:
            raise RuntimeError(f"{self._remote}: closed")
        client = self._client_of_loop()
        if self._encoder is None:
            return await self._infer(client, inputs, deadline_s)
        try:
            async with asyncio.TaskGroup() as both:
                local = both.create_task(self._encoder.predict(inputs))
                remote = both.create_task(self._infer(client, inputs, deadline_s))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {**remote.result(), **local.result()}

    def _client_of_loop(self) -> UpstreamClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = connect(self._remote, self._max_answer_bytes), loop
        return self._client

    async def _infer(self, client: UpstreamClient, inputs: Tensors, deadline_s: float) -> dict[str, Array]:
        rows = self._server_rows(inputs)
        try:
            if not self._verified:
                await self._verify(client, deadline_s)
            elif time.monotonic() > self._verify_again_at_s:
                self._verify_again_at_s = math.inf
                self._verifying = asyncio.create_task(self._verify_again(client))
            outputs = await self._infer_rows(client, rows, deadline_s)
            if self._stuck.alarms(rows, outputs):
                await self._verify(client, deadline_s)
        except UpstreamUnreachable:
            self._verified = False
            raise
        return self._by_local_name(outputs)

    async def _verify(self, client: UpstreamClient, deadline_s: float) -> None:
        self._verified = False
        await self._stored.verify(client, self._max_rows, _time_left(deadline_s))
        self._note_verified()

    async def _infer_rows(
        self, client: UpstreamClient, rows: Mapping[str, Array], deadline_s: float
    ) -> Tensors:
        """The answer to a caller's rows. What it raises has no text of the server, which may quote them."""
        try:
            return await infer_in_parts(
                client, rows, self._stored.description, self._max_rows, _time_left(deadline_s)
            )
        except RequestRefused as error:
            raise ModelRaised(f"{self._remote}: {error.status}") from None
        except UpstreamFailed as error:
            if not error.status:
                raise
            raise type(error)(f"{self._remote}: {error.status}", error.status) from None

    def _server_rows(self, inputs: Tensors) -> dict[str, Array]:
        """The inputs by the server's names. Raises ValueError for one that is missing or of another dtype."""
        return {self._server_inputs[spec.name]: _require_input(inputs, spec) for spec in self.inputs}

    def _by_local_name(self, outputs: Tensors) -> dict[str, Array]:
        return {local: outputs[name] for name, local in self._local_outputs.items()}

    def _note_verified(self) -> None:
        self._verified, self._verify_again_at_s = True, time.monotonic() + VERIFY_EVERY_S

    async def _verify_again(self, client: UpstreamClient) -> None:
        """Sends the probe rows concurrently with calls, which do not wait for the result."""
        try:
            await self._stored.verify(client, self._max_rows, lambda: VERIFY_EVERY_S)
        except UnexpectedAnswer:
            self._verified = False  # the next call verifies first, and raises this error
        except (UpstreamFailed, TimeoutError):
            self._verify_again_at_s = time.monotonic() + VERIFY_EVERY_S
        else:
            self._note_verified()

    async def check(self, timeout_s: float) -> None:
        """Verifies that the upstream is the one that was calibrated, over connections of its own.

        Raises: UpstreamFailed or TimeoutError if that is unknown now, UnexpectedAnswer if it is not.
        """
        client = connect(self._remote, self._max_answer_bytes)
        try:
            deadline_s = asyncio.get_running_loop().time() + timeout_s
            await self._stored.verify(client, self._max_rows, _time_left(deadline_s))
            self._note_verified()
        finally:
            await client.close()

    def run(self, inputs: Tensors, *, chunk: int = 256) -> Tensors:
        """All outputs for a whole data set; blocks. For calibration.

        Raises: as `predict`.
        """
        rows = self._server_rows(inputs)

        async def infer_all() -> dict[str, Array]:
            client = connect(self._remote, self._max_answer_bytes)
            step = min(chunk, self._max_rows)
            try:
                return await infer_in_parts(client, rows, self._stored.description, step, lambda: MAX_CALL_S)
            finally:
                await client.close()

        outputs = self._by_local_name(run_in_thread(infer_all))
        return outputs if self._encoder is None else {**outputs, **self._encoder.run(inputs, chunk=chunk)}

    @property
    def classes(self) -> None:
        """The protocol does not say which classes a model has."""

    @property
    def lost(self) -> bool:
        """Never: a call to another server can always be given up."""
        return False

    def close(self) -> None:
        """Starts closing the connections, on the loop on which they were made; `closed` waits for that."""
        self._closed = True
        if self._encoder is not None:
            self._encoder.close()
        client, self._client = self._client, None
        if client is not None and self._loop is not None and self._loop.is_running():
            self._closing = self._loop.create_task(_close(client, self._verifying))

    async def closed(self) -> None:
        """Waits until the connections that `close` began to close are closed."""
        if self._closing is not None:
            await self._closing


async def _close(client: UpstreamClient, verifying: asyncio.Task[None] | None) -> None:
    if verifying is not None:
        verifying.cancel()
        await asyncio.gather(verifying, return_exceptions=True)
    await client.close()


def _local_names(names: Mapping[str, str], server_names: list[str]) -> dict[str, str]:
    """The server's names to local ones. Raises ValueError for an unknown name, or one that stands for two."""
    for name in names.values():
        if name not in server_names:
            raise ValueError(f"names: {name!r} is neither an input nor an output of the model")
    if len(set(names.values())) != len(names):
        raise ValueError("names: gives two names to one tensor")
    renamed = {name: local for local, name in names.items()}
    locals_ = {name: renamed.get(name, name) for name in server_names}
    if len(set(locals_.values())) != len(set(server_names)):
        raise ValueError("names: gives one name to two tensors")
    return locals_


def _require_fit(
    encoder: OnnxModel, inputs: tuple[ModelTensor, ...], outputs: tuple[ModelTensor, ...]
) -> None:
    """Raises ValueError unless the encoder takes the upstream's inputs and adds outputs of other names."""
    for spec in encoder.inputs:
        if spec not in inputs:
            raise ValueError(f"encoder: its input {spec.name!r} is not one that the upstream takes")
    if twice := {spec.name for spec in outputs} & {spec.name for spec in encoder.outputs}:
        raise ValueError(f"encoder: the upstream has an output {min(twice)!r} too; rename one: names")


def _require_input(inputs: Tensors, spec: ModelTensor) -> Array:
    """One input. Raises ValueError if it is missing or of another dtype."""
    if spec.name not in inputs:
        raise ValueError(f"input {spec.name!r} is missing")
    if inputs[spec.name].dtype != spec.dtype:
        raise ValueError(f"input {spec.name!r} is {inputs[spec.name].dtype}, not {spec.dtype}")
    return inputs[spec.name]


def _time_left(deadline_s: float) -> Callable[[], float]:
    """A function that returns the seconds until `deadline_s` of the running loop, or raises TimeoutError."""
    clock = asyncio.get_running_loop().time

    def time_left() -> float:
        left_s = min(deadline_s - clock(), MAX_CALL_S)
        if left_s <= 0:
            raise TimeoutError("no time is left to ask")
        return left_s

    return time_left
