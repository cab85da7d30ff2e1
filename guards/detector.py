"""What a detector is: fitted once, immutable, one number a row, **larger = more suspicious**.

Every detector also has the classmethod `fit(s: Signals, y: int64[n], *, seed: int)`, the only way to make
one.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards.rows import F8, Signals

I8: TypeAlias = NDArray[np.int64]


class Detector(Protocol):
    """A fitted score. `needs_features`: whether it reads the model's answer (h or z), not x alone."""

    kind: ClassVar[str]
    needs_features: ClassVar[bool]

    def score(self, s: Signals, /) -> F8:
        """float64[n], one number a row; never NaN for finite signals. Raises ValueError for another width."""
        ...


def matrix(owner: str, name: str, array: NDArray[Any] | None, width: int | None = None) -> F8:
    """A signal as float64[n, width].

    Raises ValueError, naming the detector, if it is absent or of another shape.
    """
    if array is None:
        raise ValueError(
            f"{owner}: needs {name}, and the model's answer holds none; use an input-only detector"
        )
    if array.ndim != 2 or width not in (None, array.shape[1]):
        expected = f"[n, {width or 'd'}]"
        raise ValueError(
            f"{owner}: {name} has shape {list(array.shape)}, expected {expected}; fit it on this model"
        )
    return array.astype(np.float64)


def labelled(owner: str, x: NDArray[Any], y: I8, least: int) -> None:
    """Refuse to fit on too few rows, on labels that do not match them, or on values that are not finite."""
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{owner}: labels are {y.dtype}{list(y.shape)}, expected int64[{len(x)}]; one a row")
    if len(x) < least:
        raise ValueError(f"{owner}: {len(x)} rows to fit on, needs at least {least}; give more data")
    if not np.isfinite(x).all():
        raise ValueError(f"{owner}: the rows to fit on hold NaN or infinity; remove those rows")


def unit(h: F8) -> F8:
    """Rows at length one; a row of zeros stays zero."""
    length = np.sqrt(np.vecdot(h, h))[:, None]
    at_one: F8 = h / np.maximum(length, 1e-30)
    return at_one
