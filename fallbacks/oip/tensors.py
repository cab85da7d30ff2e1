"""One tensor as an upstream declares it, and its encodings: little-endian bytes, or a list of numbers.

Values must be of the declared datatype exactly: no fraction becomes an integer, no integer wraps, a boolean
is no number. A null in place of a float is NaN, which is how MLServer writes it; that row fails. BF16, for
which numpy has no type, is float32 in arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fallbacks.oip.errors import UnexpectedAnswer, excerpt
from fallbacks.oip.values import NUMBER_DTYPES, bf16_bits, flatten
from fallbacks.predictor import ModelTensor

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]

MAX_RANK: Final = 8
MAX_ANSWER_BYTES: Final = 64 * 2**20
UPSTREAM_DTYPES: Final = {**NUMBER_DTYPES, "BF16": np.dtype("<f4")}
BINARY_ONLY: Final = frozenset({"FP16", "BF16"})
_TYPES: Final[dict[str, frozenset[type]]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({float, int, type(None)}),
}


@dataclass(frozen=True, slots=True)
class UpstreamTensor:
    """One input or output of a server's model. The first axis is the row; None is any size."""

    name: str
    datatype: str
    shape: tuple[int | None, ...]

    def as_model_tensor(self, name: str) -> ModelTensor:
        """The same under another name."""
        dtype = UPSTREAM_DTYPES[self.datatype].newbyteorder("=")
        return ModelTensor(name, dtype, self.shape, self.datatype == "BF16")

    @property
    def item_bytes(self) -> int:
        return 2 if self.datatype == "BF16" else UPSTREAM_DTYPES[self.datatype].itemsize

    def checked_shape(self, datatype: object, shape: Sequence[object], n: int) -> Shape:
        """The shape of n rows of this tensor, if it is what an answer states. Raises UnexpectedAnswer.

        One value a row may be stated as [n] or [n, 1], whichever is declared: MLServer sends the second.
        """
        if datatype == self.datatype and list(shape) in ([n], [n, 1]) and self.shape[1:] in ((), (1,)):
            return (n, *(1 for _ in self.shape[1:]))
        sizes = tuple(size for size in shape if type(size) is int and size >= 0)
        good = datatype == self.datatype and len(sizes) == len(shape) == len(self.shape) and sizes[0] == n
        pairs = zip(self.shape[1:], sizes[1:], strict=False)
        if not good or any(declared not in (None, size) for declared, size in pairs):
            stated, expected = f"{datatype}{list(shape)}", [n, *self.shape[1:]]
            raise UnexpectedAnswer(f"{self.name!r} is {excerpt(stated)}, not {self.datatype}{expected}")
        return sizes

    def to_bytes(self, array: Array) -> bytes:
        """The row-major little-endian values; BF16 rounds to nearest even."""
        if self.datatype != "BF16":
            return array.astype(UPSTREAM_DTYPES[self.datatype], copy=False).tobytes()
        return bf16_bits(array).tobytes()

    def from_bytes(self, content: bytes | memoryview, shape: Shape) -> Array:
        """The numbers in exactly as many bytes as the shape needs. Raises UnexpectedAnswer."""
        size = math.prod(shape) * self.item_bytes
        if len(content) != size:
            raise UnexpectedAnswer(f"{self.name!r} has {len(content)} bytes, not {size}")
        if self.datatype == "BF16":
            wide = np.frombuffer(content, "<u2").astype("<u4") << np.uint32(16)
            return wide.view("<f4").reshape(shape)
        if self.datatype == "BOOL" and np.frombuffer(content, np.uint8).max(initial=0) > 1:
            raise UnexpectedAnswer(f"{self.name!r} holds bytes that are neither true nor false")
        return np.frombuffer(bytes(content), UPSTREAM_DTYPES[self.datatype]).reshape(shape)

    def from_list(self, data: object, shape: Shape) -> Array:
        """The numbers in a list, flat or nested as the shape. Raises UnexpectedAnswer."""
        values = flatten(data, shape)
        dtype = UPSTREAM_DTYPES[self.datatype]
        if values is None or not set(map(type, values)) <= _TYPES[dtype.kind]:
            raise UnexpectedAnswer(
                f"{self.name!r} is not a list of {math.prod(shape)} {self.datatype} values"
            )
        try:
            with np.errstate(over="ignore"):  # becomes infinite, and fails its row
                return np.array(values, dtype).reshape(shape)
        except (OverflowError, ValueError) as error:
            raise UnexpectedAnswer(f"{self.name!r}: {error}") from error


def max_answer_bytes(outputs: Iterable[UpstreamTensor], rows: int) -> int:
    """The largest answer worth reading: 32 bytes a number as JSON needs, 64 KiB for the rest.

    64 MiB where an output leaves a size open.
    """
    values = 0
    for output in outputs:
        if None in output.shape[1:]:
            return MAX_ANSWER_BYTES
        values += rows * math.prod(size for size in output.shape[1:] if size is not None)
    return 65536 + 32 * values
