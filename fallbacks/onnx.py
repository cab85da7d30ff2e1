"""An ONNX model in its own thread: the event loop keeps running while the model computes, or hangs.

A run that is out of time must be stopped, not only ignored, or a few hung requests would occupy every core.
So a cancelled `predict` terminates its run. onnxruntime reacts between two operators; until then the model
refuses calls at once instead of queueing them behind the hung run: a bulkhead of one. A run that never reacts
is given up, and another thread goes on (`worker_with_spares.py`).
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fallbacks.onnx_batches import Feed, row_count, run_fixed
from fallbacks.onnx_conversions import FLOAT32_SUFFIX, decode_texts, encode_texts
from fallbacks.onnx_errors import without_values
from fallbacks.onnx_file import read_once
from fallbacks.onnx_load import load_graph
from fallbacks.onnx_signature import local_names, narrowed
from fallbacks.predictor import ModelBusy, ModelRaised, ModelTensor, Tensors, zeros
from fallbacks.worker_with_spares import WorkerWithSpares


class OnnxModel:
    """A predictor over one onnxruntime session on the CPU. Immutable but for its thread, which `close` ends.

    `digest` is the sha256 (hex) of the file's bytes; `inputs` and `outputs` are in declared order, under the
    deployment's names. `classes` are the class labels that the graph itself names, None if it names none.
    `rows_apart`: whether no two rows share a run.
    `fixed_rows` is how many rows the graph takes in one run, None for any number: then a batch of n takes
    ceil(n / fixed_rows) runs. `ignored_outputs` are no tensors of numbers or text, and are never computed.
    `index_uses`: how inputs are read that are an index, a size or a divisor in the graph.
    Text is bytes in arrays, and bfloat16 is float32 (see `onnx_conversions`).
    """

    def __init__(
        self, name: str, content: bytes, threads: int, names: Mapping[str, str] | None = None
    ) -> None:
        loaded = load_graph(name, content, threads)
        self._session, signature = loaded.session, loaded.signature
        self.name, self.classes = name, loaded.classes
        self.digest = hashlib.sha256(content).hexdigest()
        local = local_names(name, names or {}, signature)
        self.inputs = tuple(replace(spec, name=local[spec.name]) for spec in signature.inputs)
        self.outputs = tuple(replace(spec, name=local[spec.name]) for spec in signature.outputs)
        self.fixed_rows, self.ignored_outputs = signature.fixed_rows, tuple(signature.ignored)
        self.index_uses = {local[own]: use for own, use in loaded.index_uses.items() if own in local}
        self.rows_apart = False
        self._unbatched = frozenset(local[output] for output in signature.unbatched)
        self._feed_names = list(zip(self.inputs, map(_session_name, signature.inputs), strict=True))
        self._session_outputs = list(map(_session_name, signature.outputs))
        self._output_names = [spec.name for spec in self.outputs]
        self._text_inputs = [(spec.name, name) for spec, name in self._feed_names if spec.dtype.kind == "O"]
        self._text_outputs = [spec.name for spec in self.outputs if spec.dtype.kind == "O"]
        self._workers = WorkerWithSpares(f"onnx {Path(name).name}")

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, threads: int = 1, names: Mapping[str, str] | None = None
    ) -> OnnxModel:
        """The model in a file.

        Args:   threads: how many cores one operator may use. names: the deployment's name of an input or
                output, to the file's own.
        Raises: ValueError (file, what is wrong, how to mend it) if the file is missing, not a regular file,
                over 512 MiB, no ONNX model with its weights inside, refused by onnxruntime, has no batch, or
                lacks an input or output that `names` names.
        Cost:   a few times the file in memory for a moment. Runs no operators but those that fold constants.
        """
        name = os.fspath(path)
        if threads < 1:
            raise ValueError(f"{name}: {threads} threads; give 1 or more")
        return cls(name, read_once(path), threads, names)

    def with_shapes(self, shapes: Mapping[str, tuple[int | None, ...]]) -> OnnxModel:
        """This model, its session and its thread, with open axes of its inputs set to the sizes given.

        Args:   shapes: whole shapes as in `inputs`, the first axis None; None leaves an axis as declared.
        Raises: ValueError naming the input that is unknown, or whose shape contradicts the one given.
        """
        same = copy.copy(self)
        same.inputs = narrowed(self.name, self.inputs, shapes)
        return same

    def run_rows_apart(self) -> None:
        """From now on no two rows share a run: for a graph whose rows change each other's answers.

        To be called before it serves. Cost: a run a row.
        """
        self.fixed_rows, self.rows_apart = self.fixed_rows or 1, True

    async def predict(self, inputs: Tensors, /) -> Tensors:
        """All outputs, by name. Inputs that the model does not declare are ignored.

        Raises: UnfitInput for bytes that are not UTF-8, ModelRaised for all that a run raises, ModelBusy
                while a cancelled run still occupies the thread, ValueError for a missing input or dtype.
        Cost:   33 us over onnxruntime itself on uvloop, for the hop to the thread and back (batch of 1).
        """
        worker = self._workers.free()
        if worker is None:
            raise ModelBusy(f"{self.name}: still busy with an abandoned run")
        feed = self._feed(inputs)
        options = onnxruntime.RunOptions()
        options.log_severity_level = 4  # its errors are raised; they need not be on stderr as well

        def stop() -> None:
            options.terminate = True

        def answer() -> dict[str, NDArray[Any]]:
            try:
                return self._by_name(self._answer(feed, options))
            except ModelRaised:
                raise
            except Exception as error:  # noqa: BLE001 - the text of any may quote a row
                raise ModelRaised(f"{self.name}: {without_values(error)}") from None

        return await worker.call(answer, stop)

    def run(self, inputs: Tensors, *, chunk: int = 256) -> dict[str, NDArray[Any]]:
        """All outputs for a whole data set, in the caller's thread, `chunk` rows at a time: for calibration.

        Raises: as `predict`, and ValueError unless every input has the same number of rows.
        """
        feed = self._feed(inputs)
        if chunk < 1:
            raise ValueError(f"{self.name}: {chunk} rows at a time; give 1 or more")
        rows = row_count(self.name, feed)
        if self.fixed_rows is not None:
            return self._by_name(self._answer(feed, None))
        parts = [
            self._answer({name: array[at : at + chunk] for name, array in feed.items()}, None)
            for at in range(0, max(rows, 1), chunk)
        ]
        return self._by_name([np.concatenate(column) for column in zip(*parts, strict=True)])

    def canary(self, n: int) -> dict[str, NDArray[Any]]:
        """n rows of zeros and empty texts in the declared shapes, unknown sizes 1; tests a model at load."""
        return zeros(self.inputs, n)

    @property
    def lost(self) -> bool:
        """As `LoadedModel.lost`: too many runs did not come back."""
        return self._workers.lost

    def close(self) -> None:
        """Ends the thread: waits a second for a run to finish, then stops it. Blocks. Idempotent."""
        self._workers.close()

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
        for local, name in self._text_inputs:
            feed[name] = decode_texts(local, feed[name])
        return feed

    def _answer(self, feed: Feed, options: onnxruntime.RunOptions | None) -> Sequence[NDArray[Any]]:
        """The outputs of one feed, in declared order; blocks."""
        if self.fixed_rows is None:
            return self._run_once(feed, options)
        run = partial(self._run_once, options=options)
        names, unbatched = self._output_names, self._unbatched
        return run_fixed(self.name, run, feed, self.fixed_rows, names, unbatched, apart=self.rows_apart)

    def _run_once(self, feed: Feed, options: onnxruntime.RunOptions | None) -> Sequence[NDArray[Any]]:
        answer: Sequence[NDArray[Any]] = self._session.run(self._session_outputs, feed, options)
        return answer

    def _by_name(self, outputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        named = dict(zip(self._output_names, outputs, strict=True))
        for name in self._text_outputs:
            named[name] = encode_texts(named[name])
        return named


def _session_name(spec: ModelTensor) -> str:
    return f"{spec.name}{FLOAT32_SUFFIX}" if spec.bf16 else spec.name
