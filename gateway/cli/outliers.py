"""Rows that no model should answer, made from good rows by the kind of input.

| input | becomes |
|---|---|
| numbers | 30 robust spreads from the median of each value, up or down; inside the policy's range |
| text | random characters, as long as the text was, 8 to 64 of them |
| a picture | noise within the range of its values |
| true and false | stays: either is a good value |

No value is missing or infinite, and every row is a request that the contract takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Tensors
from gateway.core.rows import Mask
from gateway.protocol.contract import TensorSpec
from gateway.protocol.tensors import LOWEST_BF16, nearest_bf16
from guards.row_view import is_picture

Array: TypeAlias = NDArray[Any]
Maker: TypeAlias = Callable[[TensorSpec, Array, np.random.Generator], Array]

SPREADS = 30.0
QUARTILES_TO_SIGMA = 1.349
"""The distance between the quartiles of a normal distribution, in standard deviations."""
SHORTEST, LONGEST = 8, 64
ALPHABET = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x250))]


def made_outliers(inputs: Sequence[TensorSpec], x: Tensors, seed: int) -> dict[str, Tensors]:
    """A family for each kind of input that the model has: these inputs alone differ from the good rows.

    Args:    x: n >= 1 good rows, each input by name.
    Returns: up to n rows of each family.
    """
    rng, families = np.random.default_rng(seed), dict[str, Tensors]()
    for family, make in {
        "numbers far off": _far_outside,
        "unseen text": _random_text,
        "pictures of noise": _noise,
    }.items():
        chosen = [spec for spec in inputs if _maker(spec) is make]
        made = {**x, **{spec.name: make(spec, x[spec.name], rng) for spec in chosen}}
        fitting = np.flatnonzero(sendable(inputs, made))
        if chosen and fitting.size:
            families[family] = take(made, fitting)
    return families


def noise(inputs: Sequence[TensorSpec], x: Tensors, seed: int) -> Tensors:
    """Rows of which every input is an outlier: uniform where its range is known, else as its kind says."""
    rng, made = np.random.default_rng(seed), dict[str, Array]()
    for spec in inputs:
        ranged = spec.low is not None and spec.high is not None
        make = _noise if ranged else _maker(spec)
        made[spec.name] = x[spec.name] if make is None else make(spec, x[spec.name], rng)
    return made


def take(x: Tensors, rows: NDArray[np.intp]) -> Tensors:
    """Some of the rows."""
    return {name: array[rows] for name, array in x.items()}


def sendable(inputs: Sequence[TensorSpec], x: Tensors) -> Mask:
    """Which rows have no value that the contract refuses: out of range, or missing where none may be."""
    good = np.ones(len(x[inputs[0].name]), np.bool_)
    for spec in inputs:
        values = x[spec.name].reshape(len(good), -1)
        if spec.bounds is not None:
            inside = (values >= spec.bounds[0]) & (values <= spec.bounds[1])
            if spec.missing:
                inside |= np.isnan(values)
            good &= inside.all(1)
    return good


def _maker(spec: TensorSpec) -> Maker | None:
    if is_picture(spec):
        return _noise
    return {"f": _far_outside, "i": _far_outside, "u": _far_outside, "O": _random_text}.get(spec.dtype.kind)


def _far_outside(spec: TensorSpec, array: Array, rng: np.random.Generator) -> Array:
    values = array.reshape(len(array), -1).astype(np.float64)
    values[:, np.isnan(values).all(0)] = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # of values near the largest
        low, median, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=0)
        spread = (high - low) / QUARTILES_TO_SIGMA
        for other in (np.nanstd(values, axis=0), np.ones_like(spread)):
            spread = np.where(spread > 0, spread, other)
        far = median + rng.choice((-SPREADS, SPREADS), values.shape) * spread
    return _as_values(spec, np.nan_to_num(far)).reshape(array.shape)


def _noise(spec: TensorSpec, array: Array, rng: np.random.Generator) -> Array:
    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        finite = np.zeros(1)
    low = float(finite.min()) if spec.low is None else spec.low
    high = float(finite.max()) if spec.high is None else spec.high
    return _as_values(spec, 2 * rng.uniform(low / 2, high / 2, array.shape))  # halves: no overflow


def _random_text(spec: TensorSpec, array: Array, rng: np.random.Generator) -> Array:
    made = np.empty(array.size, np.object_)
    for i, text in enumerate(array.reshape(-1).tolist()):
        letters = rng.integers(0, len(ALPHABET), min(max(len(text), SHORTEST), LONGEST))
        made[i] = "".join(ALPHABET[letter] for letter in letters).encode()
    return made.reshape(array.shape)


def _as_values(spec: TensorSpec, values: NDArray[np.float64]) -> Array:
    """The nearest values that the contract takes."""
    if spec.dtype.kind == "f":
        low, high = (float(end) for end in spec.bounds or (-np.inf, np.inf))
        if spec.bf16:
            low, high = max(low, LOWEST_BF16), min(high, -LOWEST_BF16)
        floats: Array = np.clip(values, low, high).astype(spec.dtype)
        return nearest_bf16(floats) if spec.bf16 else floats
    info = np.iinfo(spec.dtype)
    least, most = (int(end) for end in spec.bounds or (info.min, info.max))
    whole = [min(max(round(value), least), most) for value in values.reshape(-1).tolist()]
    return np.array(whole, spec.dtype).reshape(values.shape)
