"""Inputs that are pictures, as pixels for a PNG: clipped to their range, bounded in size."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fallbacks.oip.tensors import Array
from gateway.protocol.contract import TensorSpec

U1: TypeAlias = NDArray[np.uint8]
MAX_SIDE_PIXELS = 1024
CHANNELS = (1, 3)


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
    image = channels_last(array)
    step = max(1, math.ceil(max(image.shape[:2]) / MAX_SIDE_PIXELS))
    shown = np.nan_to_num(image[::step, ::step].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = _range(shown, array.dtype, spec)
    scaled = np.clip((shown / 2 - low / 2) / ((high / 2 - low / 2) or 1.0), 0.0, 1.0)  # halves: no overflow
    out: U1 = np.rint(255 * scaled).astype(np.uint8)
    return out[..., 0] if out.shape[2] == 1 else out


def channels_last(array: Array) -> Array:
    """[1, c, h, w] or [1, h, w, c] as [h, w, c]; channels first is what ONNX models take."""
    one: Array = array[0]
    return one.transpose(1, 2, 0) if one.shape[0] in CHANNELS else one


def _range(values: NDArray[np.float64], dtype: np.dtype[Any], spec: TensorSpec | None) -> tuple[float, float]:
    if spec is not None and spec.low is not None and spec.high is not None and spec.low < spec.high:
        return spec.low, spec.high
    if dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(values.min()), float(values.max())
    return (0.0, 1.0) if low >= 0.0 and high <= 1.0 else (low, high)
