"""The detector protocol: fitted once, immutable, one number per row, **larger = more suspicious**.

Every detector also has the classmethod `fit(s: Signals, y: int64[n], *, seed: int)`, which is the way to
obtain one: an unfitted detector cannot exist. Contract and notation: docs/guards.md, section 1.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards.rows import F8, Signals

I8: TypeAlias = NDArray[np.int64]


class TooFewRows(ValueError):
    """A detector needs more rows to fit on. least: how many."""

    def __init__(self, kind: str, has: int, least: int) -> None:
        self.least = least
        super().__init__(f"{kind}: {has} rows to fit on, needs at least {least}; give more data")


class Detector(Protocol):
    """A fitted score. kind: its name; needs_features: whether it reads the model's answer (h or z)."""

    kind: ClassVar[str]
    needs_features: ClassVar[bool]

    def score(self, s: Signals, /) -> F8:
        """float64[n], one number per row, finite for finite signals. Raises ValueError for another width."""
        ...


def as_matrix(kind: str, name: str, array: NDArray[Any] | None, width: int | None = None) -> F8:
    """Convert a signal to float64[n, width].

    Args:    kind: the detector's kind, for the message; name: the signal's name; array: [n, width] or None;
             width: the expected number of columns, None for any.
    Raises:  ValueError if the array is None or of another shape.
    """
    if array is None:
        raise ValueError(
            f"{kind}: needs {name}, and the model's answer holds none; use an input-only detector"
        )
    if array.ndim != 2 or width not in (None, array.shape[1]):
        expected = f"[n, {width or 'd'}]"
        raise ValueError(
            f"{kind}: {name} has shape {list(array.shape)}, expected {expected}; fit it on this model"
        )
    return array.astype(np.float64)


def as_input(kind: str, what: str, array: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The input that an input-only detector reads.

    Args:    kind: the detector's kind, what: `a picture input` or `a table of inputs`, both for the message.
    Raises:  ValueError if it is None.
    """
    if array is None:
        raise ValueError(f"{kind}: needs {what}, and the model has none; use another detector")
    return array


def check_fit_rows(kind: str, x: NDArray[Any], y: I8, least: int) -> None:
    """Validate the rows to fit on.

    Args:    kind: the detector's kind, for the message; x: [n, ...]; y: int64[n]; least: the fewest rows.
    Raises:  TooFewRows; ValueError for labels of another shape or type, or values that are not finite.
    """
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{kind}: labels are {y.dtype}{list(y.shape)}, expected int64[{len(x)}]; one a row")
    if len(x) < least:
        raise TooFewRows(kind, len(x), least)
    if not np.isfinite(x).all():
        raise ValueError(f"{kind}: the rows to fit on hold NaN or infinity; remove those rows")


def unit_rows(h: F8) -> F8:
    """Rows scaled to Euclidean length 1: float64[n, d]; a row of zeros stays zero."""
    length = np.sqrt(np.vecdot(h, h))[:, None]
    unit: F8 = h / np.maximum(length, 1e-30)
    return unit
