"""A model that lives in another server, as a predictor like any other.

It is asked only once it is known to be the model that was calibrated: the first call, and the first one after
nobody was there, begins with the probe rows. So a server that is down when the gateway starts, or that comes
back with another model, degrades the ladder and never answers unseen. A model that is exchanged while no call
finds the server away is noticed within a minute: the probe rows are asked again beside a later call.

Each call runs in a task of its own. The gateway begins a pass before it waits for it, and timeouts of asyncio
and of httpx interrupt the task in which they were set, wherever that then waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

from fallbacks.oip.address import Remote
from fallbacks.oip.apart import apart
from fallbacks.oip.client import Client, ask, connect
from fallbacks.oip.errors import Unanswered, Unreachable, WrongAnswer
from fallbacks.oip.stored import Stored
from fallbacks.oip.tensors import Array, limit_bytes
from fallbacks.onnx import OnnxModel
from fallbacks.predictor import CallerDeadlineExceeded, ModelTensor, Tensors, zeros

LONGEST_S: Final = 60.0
AGAIN_S: Final = 60.0
CLOCKS_S: Final = 0.005
"""How much sooner than by our clock the time may be over by the server's, or by a timer's."""


class Upstream:
    """A predictor over one model of one server, and over a local encoder beside it.

    Args:    names: our name of an input or output, to the server's. encoder: answers the same rows at the
             same time; its outputs stand beside the server's. max_rows: how many it is asked for at once.
             due_s: by when (loop time) the answer to the call that is being made is needed, and whether that
             is sooner than the model's own budget, because a caller is in a hurry.
    Raises:  ValueError for names or an encoder that do not suit the server's model.
    """

    def __init__(
        self,
        remote: Remote,
        stored: Stored,
        *,
        names: Mapping[str, str],
        encoder: OnnxModel | None,
        max_rows: int,
        due_s: Callable[[], tuple[float, bool]],
    ) -> None:
        described = stored.described
        ours = _renamed(names, [one.name for one in (*described.inputs, *described.outputs)])
        self._ours = {one.name: ours[one.name] for one in described.outputs}
        self._theirs = {ours[one.name]: one.name for one in described.inputs}
        self.inputs = tuple(one.spec(ours[one.name]) for one in described.inputs)
        self.outputs = tuple(one.spec(ours[one.name]) for one in described.outputs)
        self.digest = stored.digest
        if encoder is not None:
            _suits(encoder, self.inputs, self.outputs)
            self.outputs += encoder.outputs
            self.digest = hashlib.sha256(f"{stored.digest} {encoder.digest}".encode()).hexdigest()
        self._remote, self._stored, self._encoder = remote, stored, encoder
        self._max_rows, self._due_s = max_rows, due_s
        self._answer_bytes = limit_bytes(described.outputs, max_rows)
        self._known, self._again_s = False, math.inf
        self._looking: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """All outputs, by our names. Inputs that the model does not declare are ignored.

        Raises: ValueError for a missing input, Unanswered, WrongAnswer, TimeoutError when it is too late, or
                InAHurry where that is the caller's doing.
        Cost:   one round trip for `max_rows` rows; two more the first time.
        """
        due_s, hurried = self._due_s()
        call = asyncio.create_task(self._answer(inputs, due_s))
        try:
            return await call
        except (Unanswered, TimeoutError) as error:
            if hurried and asyncio.get_running_loop().time() >= due_s - CLOCKS_S:
                raise CallerDeadlineExceeded(f"{self._remote}: {error}") from error
            raise
        finally:
            call.cancel()  # whoever gave up on the call ends it; one that has ended does not mind

    async def _answer(self, inputs: Tensors, due_s: float) -> Tensors:
        if self._closed:
            raise RuntimeError(f"{self._remote}: closed")
        client = self._client_here()
        if self._encoder is None:
            return await self._ask(client, inputs, due_s)
        try:
            async with asyncio.TaskGroup() as both:
                local = both.create_task(self._encoder.predict(inputs))
                answer = both.create_task(self._ask(client, inputs, due_s))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {**answer.result(), **local.result()}

    def _client_here(self) -> Client:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = connect(self._remote, self._answer_bytes), loop
        return self._client

    async def _ask(self, client: Client, inputs: Tensors, due_s: float) -> dict[str, Array]:
        rows = {self._theirs[spec.name]: _given(inputs, spec) for spec in self.inputs}
        try:
            if not self._known:
                await self._stored.hold(client, self._max_rows, _until(due_s))
                self._note_known()
            elif time.monotonic() > self._again_s:
                self._again_s = math.inf
                self._looking = asyncio.create_task(self._look_again(client))
            found = await ask(client, rows, self._stored.described, self._max_rows, _until(due_s))
        except Unreachable:
            self._known = False
            raise
        return {ours: found[theirs] for theirs, ours in self._ours.items()}

    def _note_known(self) -> None:
        self._known, self._again_s = True, time.monotonic() + AGAIN_S

    async def _look_again(self, client: Client) -> None:
        """Asks the probe rows beside the calls, which do not wait for it."""
        try:
            await self._stored.hold(client, self._max_rows, lambda: AGAIN_S)
        except WrongAnswer:
            self._known = False  # the next call asks once more, and says so
        except (Unanswered, TimeoutError):
            self._again_s = time.monotonic() + AGAIN_S
        else:
            self._note_known()

    async def check(self, timeout_s: float) -> None:
        """Whether the upstream is the one that was calibrated, asked over connections of its own.

        Raises: Unanswered or TimeoutError if that cannot be told now, WrongAnswer if it is not.
        """
        client = connect(self._remote, self._answer_bytes)
        try:
            due_s = asyncio.get_running_loop().time() + timeout_s
            await self._stored.hold(client, self._max_rows, _until(due_s))
            self._note_known()
        finally:
            await client.close()

    def run(self, inputs: Tensors, *, chunk: int = 256) -> Tensors:
        """All outputs for a whole data set, in the caller's thread's time; for calibration.

        Raises: as `predict`.
        """
        rows = {self._theirs[spec.name]: _given(inputs, spec) for spec in self.inputs}

        async def everything() -> dict[str, Array]:
            client = connect(self._remote, self._answer_bytes)
            step = min(chunk, self._max_rows)
            try:
                return await ask(client, rows, self._stored.described, step, lambda: LONGEST_S)
            finally:
                await client.close()

        found = apart(everything)
        answer = {ours: found[theirs] for theirs, ours in self._ours.items()}
        return answer if self._encoder is None else {**answer, **self._encoder.run(inputs, chunk=chunk)}

    def canary(self, n: int) -> dict[str, Array]:
        """n rows of zeros in the declared shapes, unknown sizes taken as 1."""
        return zeros(self.inputs, n)

    def example(self) -> tuple[Tensors, Tensors]:
        """The probe rows and what was answered to them at calibration."""
        rows = {ours: self._stored.probes[theirs] for ours, theirs in self._theirs.items()}
        answer = {ours: self._stored.answers[theirs] for theirs, ours in self._ours.items()}
        return rows, answer if self._encoder is None else {**answer, **self._encoder.run(rows)}

    def close(self) -> None:
        """Begins to end the connections, on the loop on which they were made; `closed` waits for that."""
        self._closed = True
        if self._encoder is not None:
            self._encoder.close()
        client, self._client = self._client, None
        if client is not None and self._loop is not None and self._loop.is_running():
            self._closing = self._loop.create_task(_end(client, self._looking))

    async def closed(self) -> None:
        """Waits until the connections that `close` ended are gone."""
        if self._closing is not None:
            await self._closing


async def _end(client: Client, looking: asyncio.Task[None] | None) -> None:
    if looking is not None:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await client.close()


def _renamed(names: Mapping[str, str], theirs: list[str]) -> dict[str, str]:
    """Their names to ours. Raises ValueError for a name that is not theirs, or that stands for two."""
    for name in names.values():
        if name not in theirs:
            raise ValueError(f"names: {name!r} is neither an input nor an output of the model")
    if len(set(names.values())) != len(names):
        raise ValueError("names: gives two names to one tensor")
    back = {theirs: ours for ours, theirs in names.items()}
    ours = {name: back.get(name, name) for name in theirs}
    if len(set(ours.values())) != len(set(theirs)):
        raise ValueError("names: gives one name to two tensors")
    return ours


def _suits(encoder: OnnxModel, inputs: tuple[ModelTensor, ...], outputs: tuple[ModelTensor, ...]) -> None:
    for spec in encoder.inputs:
        if spec not in inputs:
            raise ValueError(f"encoder: its input {spec.name!r} is not one that the upstream takes")
    if twice := {spec.name for spec in outputs} & {spec.name for spec in encoder.outputs}:
        raise ValueError(f"encoder: the upstream has an output {min(twice)!r} too; rename one: names")


def _given(inputs: Tensors, spec: ModelTensor) -> Array:
    if spec.name not in inputs:
        raise ValueError(f"input {spec.name!r} is missing")
    if inputs[spec.name].dtype != spec.dtype:
        raise ValueError(f"input {spec.name!r} is {inputs[spec.name].dtype}, not {spec.dtype}")
    return inputs[spec.name]


def _until(due_s: float) -> Callable[[], float]:
    """How much time is left until `due_s` of the running loop. Raises TimeoutError if none is."""
    clock = asyncio.get_running_loop().time

    def left_s() -> float:
        left = min(due_s - clock(), LONGEST_S)
        if left <= 0:
            raise TimeoutError("no time is left to ask")
        return left

    return left_s
