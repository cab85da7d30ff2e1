"""One input of one row as a reader can take it in: a picture, a few values, or the beginning of a text.

Inputs may hold anything. Pixels are numbers, clipped and encoded here; values are formatted here; text is
made printable and shortened, and the template escapes it.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.calibration.page.formatting import number, printable
from gateway.png import png

MAX_SIDE_PIXELS, LARGE_PIXELS = 96, 16
MAX_VALUES, MAX_TEXT_BYTES, SHORT_TEXT = 16, 240, 16


@dataclass(frozen=True, slots=True)
class Shown:
    """An input of a row. picture: a data URI, None for other inputs; values: its first ones, and how many
    are left out; text: whether they are texts."""

    name: str
    picture: str | None
    values: list[str]
    left_out: int
    text: bool

    @property
    def short(self) -> bool:
        """Whether it fits beside its name: one number, or a word."""
        return self.picture is None and len(self.values) == 1 and len(self.values[0]) <= SHORT_TEXT


def show(name: str, array: NDArray[Any]) -> Shown:
    """One row of an input, array: [...] without the axis of rows."""
    if is_picture(array):
        return Shown(name, data_uri(array), [], 0, text=False)
    flat = array.reshape(-1)
    values = [_value(item) for item in flat[:MAX_VALUES].tolist()]
    return Shown(name, None, values, array.size - len(values), text=array.dtype.kind in "OUS")


def is_picture(array: NDArray[Any]) -> bool:
    """Whether this is [1, h, w] or [3, h, w] of bytes, of values in [0, 1], or large and of finite values."""
    if array.ndim != 3 or array.shape[0] not in (1, 3) or min(array.shape[1:]) < 2:
        return False
    if array.dtype == np.uint8:
        return True
    if array.dtype.kind != "f":
        return False
    return _as_it_is(array) or (min(array.shape[1:]) >= LARGE_PIXELS and bool(np.isfinite(array).all()))


def _as_it_is(array: NDArray[Any]) -> bool:
    return bool(((array >= 0) & (array <= 1)).all())


def _levels(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Brightness as bytes. Standardized values are stretched from the least one to the largest."""
    if array.dtype == np.uint8:
        return array
    values = array.astype(np.float64)
    if not _as_it_is(array):
        values = (values - values.min()) / (values.max() - values.min() or 1.0)
    return np.rint(255 * values).astype(np.uint8)


def data_uri(picture: NDArray[Any]) -> str:
    """The picture as `data:image/png`, at most `MAX_SIDE_PIXELS` a side, thinned out where larger."""
    step = max(1, math.ceil(max(picture.shape[1:]) / MAX_SIDE_PIXELS))
    small = picture[:, ::step, ::step]
    levels = _levels(small)
    image = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def _value(item: Any) -> str:
    if isinstance(item, str):
        item = item.encode("utf-8", "backslashreplace")
    if isinstance(item, bytes):
        text = item[:MAX_TEXT_BYTES].decode("utf-8", "backslashreplace")
        return f"{printable(text)}{'…' if len(item) > MAX_TEXT_BYTES else ''}"
    if isinstance(item, bool | int):
        return str(item)
    return number(float(item))
