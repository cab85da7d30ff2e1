"""How a case is shown to its reviewer: pictures, tables, text, and the reasons why it was deferred.

A case's input was written by a caller, perhaps to harm the reviewer. So none of it is passed on unchanged:
pixels are numbers, clipped and encoded here as PNG; cells are numbers, formatted here; text keeps its
printable characters, and the page escapes it; the rest is a summary. Sizes are bounded before encoding.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from fallbacks.oip.tensors import Array
from gateway.policy.schema import Policy
from gateway.protocol.contract import Contract, TensorSpec

U1: TypeAlias = NDArray[np.uint8]
MAX_SIDE_PIXELS = 1024
MAX_CELLS = 512
MAX_TEXTS, MAX_TEXT_BYTES = 32, 4096
CHANNELS = (1, 3)
_NO_SPEC = TensorSpec("", np.dtype(np.float32), (None,))


@dataclass(frozen=True, slots=True)
class PicturePreview:
    """An input that is a picture; its pixels are a resource of their own. Sizes in pixels, as sent."""

    name: str
    width: int
    height: int
    kind: Literal["picture"] = "picture"


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of an input. `place`: its position in the range, 0 to 1; None if it is not finite."""

    index: int
    value: str
    place: float | None


@dataclass(frozen=True, slots=True)
class NumbersPreview:
    """An input of up to MAX_CELLS numbers in a row, between `low` and `high`."""

    name: str
    low: str
    high: str
    cells: tuple[Cell, ...]
    kind: Literal["row"] = "row"


@dataclass(frozen=True, slots=True)
class TextPreview:
    """An input of text. `left_out`: how many texts there are beyond `parts`."""

    name: str
    parts: tuple[str, ...]
    left_out: int = 0
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class SummaryPreview:
    """An input of any other form."""

    name: str
    facts: Mapping[str, str]
    kind: Literal["summary"] = "summary"


Preview: TypeAlias = PicturePreview | NumbersPreview | TextPreview | SummaryPreview


def previews(inputs: Mapping[str, Array], contract: Contract) -> list[Preview]:
    """The previews of one case's inputs. Its arrays have one row each."""
    return [
        _preview(name, array, contract.inputs_by_name.get(name, _NO_SPEC)) for name, array in inputs.items()
    ]


def _preview(name: str, array: Array, spec: TensorSpec) -> Preview:
    if is_picture(array):
        height, width = _channels_last(array).shape[:2]
        return PicturePreview(name, width, height)
    if array.dtype.kind == "O":
        parts = tuple(_printable(item) for item in array.flat[:MAX_TEXTS])
        return TextPreview(name, parts, array.size - len(parts))
    if array.ndim <= 2 and array.shape[:-1] in ((), (1,)) and 1 <= array.size <= MAX_CELLS:
        return _row(name, array.reshape(-1), spec)
    return SummaryPreview(name, _facts(array, spec))


def is_picture(array: Array) -> bool:
    """Whether this is one picture of 1 or 3 channels, which come first or last."""
    if array.ndim != 4 or array.shape[0] != 1 or not array.size or array.dtype.kind not in "biuf":
        return False
    return array.shape[1] in CHANNELS or array.shape[3] in CHANNELS


def pixels(array: Array, spec: TensorSpec | None = None) -> U1:
    """One picture as bytes: uint8[h, w] or uint8[h, w, 3], at most 1024 a side, thinned out where larger.

    The range is what the contract states; else that of the type or [0, 1]; else that of the values.
    Numbers that are not finite are black.
    """
    image = _channels_last(array)
    step = max(1, math.ceil(max(image.shape[:2]) / MAX_SIDE_PIXELS))
    shown = np.nan_to_num(image[::step, ::step].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = _range(shown, array.dtype, spec or _NO_SPEC)
    scaled = np.clip((shown / 2 - low / 2) / ((high / 2 - low / 2) or 1.0), 0.0, 1.0)  # halves: no overflow
    out: U1 = np.rint(255 * scaled).astype(np.uint8)
    return out[..., 0] if out.shape[2] == 1 else out


def _channels_last(array: Array) -> Array:
    """[1, c, h, w] or [1, h, w, c] as [h, w, c]; channels first is what ONNX models take."""
    one: Array = array[0]
    return one.transpose(1, 2, 0) if one.shape[0] in CHANNELS else one


def _range(values: NDArray[np.float64], dtype: np.dtype[Any], spec: TensorSpec) -> tuple[float, float]:
    if spec.low is not None and spec.high is not None and spec.low < spec.high:
        return spec.low, spec.high
    if dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(values.min()), float(values.max())
    return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, high)


def _row(name: str, values: Array, spec: TensorSpec) -> NumbersPreview:
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (0.0, 0.0) if not finite.size else (float(finite.min()), float(finite.max()))
    low, high = (low if spec.low is None else spec.low), (high if spec.high is None else spec.high)
    width = high / 2 - low / 2
    places = np.clip((numbers / 2 - low / 2) / width, 0, 1) if width > 0 else np.full(numbers.shape, np.nan)
    places[~np.isfinite(numbers)] = np.nan
    cells = (
        Cell(
            i,
            f"{value:d}" if isinstance(value, int) else _format_number(value),
            None if math.isnan(place) else round(float(place), 4),
        )
        for i, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True))
    )
    return NumbersPreview(name, _format_number(low), _format_number(high), tuple(cells))


def _printable(item: bytes) -> str:
    """The beginning of a text. Bytes and characters that do not print are escaped, so none can hide text or
    reverse its direction."""
    whole = len(item) <= MAX_TEXT_BYTES
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    shown = decoder.decode(item[:MAX_TEXT_BYTES], final=whole)
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in shown)
    return shown if whole else f"{shown}… ({len(item)} bytes in all)"


def _facts(array: Array, spec: TensorSpec) -> dict[str, str]:
    datatype = spec.datatype if spec is not _NO_SPEC and spec.dtype == array.dtype else str(array.dtype)
    facts = {"type": datatype, "shape": " × ".join(map(str, array.shape)), "values": str(array.size)}
    numbers = array.astype(np.float64).reshape(-1)
    finite = numbers[np.isfinite(numbers)]
    if finite.size:
        facts |= {
            "smallest": _format_number(float(finite.min())),
            "largest": _format_number(float(finite.max())),
        }
        facts |= {"median": _format_number(float(np.median(finite)))}
        facts |= {"first": ", ".join(_format_number(float(value)) for value in finite[:8])}
    if finite.size < array.size:
        facts["not finite"] = str(array.size - finite.size)
    return facts


def _format_number(value: float) -> str:
    return f"{value:.6g}"


def deferral_reasons(findings_json: str, policy: Policy) -> list[str]:
    """Why a case was deferred, a sentence a cause. `findings_json`: as stored with the case."""
    checks = {check.name: (check, rung.name) for rung in policy.rungs for check in rung.checks}
    sentences: list[str] = []
    objections: dict[str, list[str]] = {}
    for one in orjson.loads(findings_json).get("raised", []):
        if one["stage"] in checks and one.get("error") is None:
            check, rung = checks[one["stage"]]
            objections.setdefault(check.objection, []).append(f"“{rung}”")
        else:
            sentences.append(_sentence(one, policy))
    for objection, rungs in objections.items():
        models, are = ("models", "are") if len(rungs) > 1 else ("model", "is")
        sentences.append(f"the {models} {' and '.join(rungs)} {are} {objection}")
    return sentences or ["no model could answer it"]


def _sentence(raised: Mapping[str, Any], policy: Policy) -> str:
    """One guard's or rung's objection, or the failure of any stage."""
    stage, error = raised["stage"], raised.get("error")
    if any(stage == rung.name for rung in policy.rungs):
        return f"the model “{stage}” failed: {error}"
    if error is not None:
        return f"a guard failed: {error}"
    guard = next((guard for guard in policy.guards if guard.name == stage), None)
    if guard is None:
        return f"“{stage}” objected"
    return guard.reviewer_sentence(raised.get("form", "full"))
