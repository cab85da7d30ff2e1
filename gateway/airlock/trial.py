"""Opens one model and runs it at its smallest, typical and largest shape. Only in the confined process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fallbacks.oip.payload import decode
from fallbacks.onnx import OnnxModel
from fallbacks.onnx_file import read_once
from fallbacks.onnx_parse import parse
from fallbacks.predictor import ModelTensor
from gateway.airlock.names import has_control
from gateway.airlock.request import ModelTrial, too_large
from gateway.airlock.static import static_problems
from guards import arrays

Rows = Mapping[str, NDArray[Any]]
KEPT_ROWS: Final = "kept.x"
"""The array of `guards.npz` that holds the rows which calibration kept."""

MADE_ROWS: Final = 3

_NO_MEMORY: Final = re.compile(r"allocat|bad_alloc|MemoryError", re.IGNORECASE)


def problems_of(trial: ModelTrial) -> list[str]:
    """Every problem of one model; empty if it may be served."""
    try:
        return list(_problems(trial))
    except MemoryError:
        return [f"{trial.path}: {too_large(trial)}"]


def _problems(trial: ModelTrial) -> Iterator[str]:
    path = trial.path
    content = read_once(trial.file)
    if hashlib.sha256(content).hexdigest() != trial.sha256:
        yield f"{path}: changed while it was read; write it elsewhere first, then rename it into place"
        return
    if found := static_problems(parse(path, content)):
        yield from (f"{path}: {what}" for what in found)
        return
    try:
        model = OnnxModel(path, content, 1, trial.names)
    except ValueError as error:
        yield f"{path}: {too_large(trial)}" if _NO_MEMORY.search(str(error)) else str(error)
        return
    if any(isinstance(one, str) and has_control(one) for one in model.classes or ()):
        yield f"{path}: the name of a class holds a control character; export it with plain names"
    yield from (f"{path}: {what}" for what in _runs(model, trial))


def _runs(model: OnnxModel, trial: ModelTrial) -> Iterator[str]:
    """Runs the model; what it refuses of rows that are not real is no problem, what it takes is."""
    try:
        typical = _kept_rows(model, trial) or _made_rows(model.inputs, trial)
        _run(model, _zeros(model.inputs, {}, 1), 1)
        _run(model, _take(typical, trial.max_rows), trial.max_rows)
        largest = [_row_shape(spec, trial.row_shapes) for spec in model.inputs]
        if largest != [typical[spec.name].shape[1:] for spec in model.inputs]:
            _run(model, _zeros(model.inputs, trial.row_shapes, trial.max_rows), trial.max_rows)
    except MemoryError:
        yield too_large(trial)
    finally:
        model.close()


def _run(model: OnnxModel, rows: Rows, chunk: int) -> Rows | None:
    """The answers, None if the model refuses the rows. Raises MemoryError."""
    try:
        return model.run(rows, chunk=chunk)
    except MemoryError:
        raise
    except Exception as error:
        if _NO_MEMORY.search(str(error)):
            raise MemoryError from error
        return None


def _kept_rows(model: OnnxModel, trial: ModelTrial) -> Rows:
    """The rows that calibration kept; none if there are none that fit."""
    if not trial.rows:
        return {}
    try:
        rows = decode(arrays.load(Path(trial.rows))[KEPT_ROWS].astype(np.uint8).tobytes())
        return {spec.name: rows[spec.name] for spec in model.inputs}
    except (OSError, ValueError, KeyError):
        return {}  # `load_guards` says what is wrong with it


def _take(rows: Rows, n: int) -> Rows:
    """n of the rows, again and again where there are fewer."""
    return {name: array[np.arange(n) % len(array)] for name, array in rows.items()}


def _zeros(inputs: tuple[ModelTensor, ...], shapes: Mapping[str, list[int | None]], n: int) -> Rows:
    rows = {}
    for spec in inputs:
        row = _row_shape(spec, shapes)
        rows[spec.name] = np.full((n, *row), b"" if spec.dtype.kind == "O" else 0, spec.dtype)
    return rows


def _made_rows(inputs: tuple[ModelTensor, ...], trial: ModelTrial) -> Rows:
    """A few different rows of small numbers."""
    random = np.random.default_rng(0)
    rows = dict(_zeros(inputs, trial.row_shapes, MADE_ROWS))
    for spec in inputs:
        if spec.dtype.kind == "f":
            rows[spec.name] = random.normal(size=rows[spec.name].shape).astype(spec.dtype)
    return rows


def _row_shape(spec: ModelTensor, shapes: Mapping[str, list[int | None]]) -> tuple[int, ...]:
    """The sizes of one row: as the model fixes them, else as they are given, else 1."""
    given = shapes.get(spec.name) or [None] * len(spec.shape[1:])
    return tuple(own or size or 1 for own, size in zip(spec.shape[1:], given, strict=False))
