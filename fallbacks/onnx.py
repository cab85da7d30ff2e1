"""An ONNX model in its own thread: the event loop keeps running while the model computes, or hangs.

A run that is out of time must be stopped, not only ignored, or a few hung requests would occupy every core.
So a cancelled `predict` terminates its run. onnxruntime reacts between two operators; until then the model
refuses calls at once instead of queueing them behind the hung run: a bulkhead of one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fallbacks.onnx_conversions import decode_texts, encode_texts, with_float32_io
from fallbacks.onnx_file import open_session, read_once, tensor_of
from fallbacks.predictor import Tensors, zeros
from fallbacks.worker import Worker

EXAMPLES: Final = 3


class OnnxModel:
    """A predictor over one onnxruntime session on the CPU. Immutable but for its thread, which `close` ends.

    `digest` is the sha256 (hex) of the bytes that were loaded; `inputs` and `outputs` are in declared order.
    Text is bytes in arrays, and bfloat16 is float32 (see `onnx_conversions`).
    """

    def __init__(self, name: str, content: bytes, threads: int) -> None:
        session = open_session(name, content, threads)
        if not session.get_inputs():
            raise ValueError(f"{name}: the model has no input; export it with its batch as an input")
        self.name = name
        self.digest = hashlib.sha256(content).hexdigest()
        self.inputs = tuple(tensor_of(name, arg) for arg in session.get_inputs())
        self.outputs = tuple(tensor_of(name, arg) for arg in session.get_outputs())
        if any(spec.bf16 for spec in (*self.inputs, *self.outputs)):
            session = open_session(name, with_float32_io(content), threads)
        self._session = session
        self._feed_names = [
            (spec, arg.name) for spec, arg in zip(self.inputs, session.get_inputs(), strict=True)
        ]
        self._session_outputs = [arg.name for arg in session.get_outputs()]
        self._output_names = [spec.name for spec in self.outputs]
        self._text_inputs = [spec.name for spec in self.inputs if spec.dtype.kind == "O"]
        self._text_outputs = [spec.name for spec in self.outputs if spec.dtype.kind == "O"]
        self._worker = Worker(f"onnx {Path(name).name}")

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, threads: int = 1) -> OnnxModel:
        """The model in a file. `threads` is how many cores one operator may use.

        Raises: ValueError (file, what is wrong, how to mend it) if the file is missing, not a regular file,
                over 512 MiB, refused by onnxruntime, or has a batch axis of fixed size.
        Cost:   a few times the file in memory for a moment. Runs no operators but those that fold constants.
        """
        name = os.fspath(path)
        if threads < 1:
            raise ValueError(f"{name}: {threads} threads; give 1 or more")
        return cls(name, read_once(path), threads)

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """All outputs, by name. Inputs that the model does not declare are ignored.

        Raises: UnfitInput for bytes that are not UTF-8, ValueError for a missing input or a wrong dtype, what
                onnxruntime raises, or RuntimeError while a cancelled run still occupies the thread.
        Cost:   33 us over onnxruntime itself on uvloop, for the hop to the thread and back (batch of 1).
        """
        if self._worker.stuck:
            raise RuntimeError(f"{self.name}: still busy with an abandoned run")
        feed = self._feed(inputs)
        options = onnxruntime.RunOptions()
        options.log_severity_level = 4  # its errors are raised; they need not be on stderr as well

        def stop() -> None:
            options.terminate = True

        outputs = await self._worker.call(
            lambda: self._session.run(self._session_outputs, feed, options), stop
        )
        return self._by_name(outputs)

    def run(self, inputs: Tensors, *, chunk: int = 256) -> dict[str, NDArray[Any]]:
        """All outputs for a whole data set, in the caller's thread, `chunk` rows at a time: for calibration.

        Raises: as `predict`, and ValueError unless every input has the same number of rows.
        """
        feed = self._feed(inputs)
        sizes = {len(array) for array in feed.values()}
        if len(sizes) != 1 or chunk < 1:
            raise ValueError(f"{self.name}: inputs of {sorted(sizes)} rows, {chunk} at a time")
        parts = [
            self._session.run(
                self._session_outputs, {name: array[at : at + chunk] for name, array in feed.items()}
            )
            for at in range(0, max(sizes.pop(), 1), chunk)
        ]
        return self._by_name([np.concatenate(column) for column in zip(*parts, strict=True)])

    def canary(self, n: int) -> dict[str, NDArray[Any]]:
        """n rows of zeros and empty texts in the declared shapes, unknown sizes 1; tests a model at load."""
        return zeros(self.inputs, n)

    def example(self) -> tuple[Tensors, Tensors]:
        """A few rows, random in the first input unless that is text, and the answer. Raises as `run`."""
        rows, first = self.canary(EXAMPLES), self.inputs[0]
        if first.dtype.kind != "O":
            x = np.random.default_rng(0).random(rows[first.name].shape, np.float32)
            rows[first.name] = x.astype(first.dtype)
        return rows, self.run(rows)

    def close(self) -> None:
        """Ends the thread: waits a second for a run to finish, then stops it. Blocks. Idempotent."""
        self._worker.close()

    async def closed(self) -> None:
        """Returns at once: `close` has waited already."""

    def _feed(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        feed = {}
        for spec, name in self._feed_names:
            if spec.name not in inputs:
                raise ValueError(f"{self.name}: input {spec.name!r} is missing")
            array = feed[name] = inputs[spec.name]
            # onnxruntime checks shapes and item sizes, but ignores a foreign byte order.
            if array.dtype != spec.dtype:
                raise ValueError(f"{self.name}: input {spec.name!r} is {array.dtype}, not {spec.dtype}")
        for name in self._text_inputs:
            feed[name] = decode_texts(name, feed[name])
        return feed

    def _by_name(self, outputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        named = dict(zip(self._output_names, outputs, strict=True))
        for name in self._text_outputs:
            named[name] = encode_texts(named[name])
        return named
