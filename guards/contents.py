"""Contents: a number for everything that a caller sent of a row, so that only equal rows are repetitions.

A guard may read one picture of several inputs. A row repeats an earlier one only if it is equal in all of
them, those included that no guard reads.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from guards.rows import Tensors
from guards.salt import words
from guards.simhash import U8

FORMS_KEPT: Final = 64
"""Of rows of open sizes, so many have their keys ready."""


@dataclass(slots=True, eq=False)
class Contents:
    """The secrets of one deployment. salt: at least 16 bytes."""

    salt: bytes = field(repr=False)
    _keys: dict[tuple[str, str, tuple[int, ...]], U8] = field(default_factory=dict, init=False, repr=False)

    def of(self, inputs: Tensors, n: int) -> U8:
        """uint64[n]: equal for equal rows, and for others with a chance of at most 2^-33, mostly of 2^-64.

        A negative zero is another content than zero, and so is another type or shape of a row.

        Args:    inputs: by name, n rows each; numbers, or objects that are str or bytes.
        Cost:    O(values): 3 us at n=1 of 28 x 28, 1 us a row at n=32; texts 1 us each.
        Source:  Dietzfelbinger et al., J. Algorithms 25 (1997): a sum of secret numbers times the words of a
                 row. Deviation: a keyed BLAKE2b of the texts is added.
        """
        found = np.zeros(n, np.uint64)
        for name, array in inputs.items():
            if array.dtype.kind == "O":
                rows = array.reshape(n, -1).tolist()
                found += np.array([self._text_hash(name, row) for row in rows], np.uint64)
            else:
                keys = self._keys_of(name, array)
                found += _words_of(array, n).astype(np.uint64) @ keys[1:]
                found += keys[0]
        return found

    def _keys_of(self, name: str, array: NDArray[Any]) -> U8:
        form = name, array.dtype.str, array.shape[1:]
        keys = self._keys.get(form)
        if keys is None:
            if len(self._keys) >= FORMS_KEPT:
                self._keys.clear()
            n_words = _words_of(array[:0], 0).shape[1]
            keys = self._keys[form] = words(self.salt, f"content {form}", n_words + 1)
        return keys

    def _text_hash(self, name: str, row: list[str | bytes]) -> int:
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self.salt[:64], person=b"content")
        for text in row:
            data = text.encode() if isinstance(text, str) else text
            digest.update(len(data).to_bytes(8) + data)
        return int.from_bytes(digest.digest())


def _words_of(array: NDArray[Any], n: int) -> NDArray[Any]:
    """Unsigned [n, words]: the bits of each row."""
    flat = np.ascontiguousarray(array).reshape(n, math.prod(array.shape[1:]))
    return flat.view(np.uint32 if flat.dtype.itemsize >= 4 else f"u{flat.dtype.itemsize}")
