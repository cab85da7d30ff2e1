"""Texts as numbers: the rarity of a category, or the length and the surprise of a free text.

A text is any bytes. Which of the two a column of texts becomes is decided by how far its values repeat, at
`text_column`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guards.arrays import read_only

F4: TypeAlias = NDArray[np.float32]
Values: TypeAlias = Sequence[bytes]

ROWS_PER_CATEGORY = 8
SINGLETONS = 0.01
FEW_SINGLETONS = 2
UNSEEN_ABOVE = math.log(20)
READ_BYTES = 4096
BUCKETS = 1 << 14
DISCOUNT = 0.75
BOUNDARY = b"\2\2"
HASH_BITS = np.uint32(32 - 14)
HASHES = tuple(np.uint32(odd) for odd in (2654435761, 2246822519, 3266489917))


@dataclass(frozen=True, eq=False)
class Categories:
    """Few values, each as its rarity. The empty text is a category like any other.

    values: uint8[bytes], all categories in a row; ends: int64[k], where each ends; nats: float64[k], their
    rarities; unseen: of every other text, log 20 above that of a category seen once.
    """

    suffixes: ClassVar[tuple[str, ...]] = ("",)

    values: NDArray[np.uint8]
    ends: NDArray[np.int64]
    nats: NDArray[np.float64]
    unseen: float

    @classmethod
    def fit(cls, texts: Values) -> Self:
        """Count the categories of the texts of n rows: -log of the share of each, (count + 1) / (n + 1)."""
        counts = sorted(Counter(texts).items())
        joined = np.frombuffer(b"".join(text for text, _ in counts), np.uint8)
        ends = np.cumsum([len(text) for text, _ in counts], dtype=np.int64)
        nats = -np.log(np.array([(count + 1) / (len(texts) + 1) for _, count in counts]))
        unseen = math.log((len(texts) + 1) / 2) + UNSEEN_ABOVE
        return cls(read_only(joined), read_only(ends), read_only(nats), unseen)

    @cached_property
    def _nats_of(self) -> dict[bytes, float]:
        joined, ends = self.values.tobytes(), self.ends.tolist()
        texts = (joined[start:end] for start, end in zip([0, *ends], ends, strict=False))
        return dict(zip(texts, self.nats.tolist(), strict=True))

    def write(self, texts: NDArray[Any], columns: F4) -> None:
        """Write the rarity of each text, nats: object[n] of bytes into float32[n, 1]. O(1) a text."""
        nats_of, unseen = self._nats_of, self.unseen
        columns[:, 0] = [nats_of.get(text, unseen) for text in texts.tolist()]


@dataclass(frozen=True, eq=False)
class FreeText:
    """The log of the length, and the mean surprise of a byte after the two before it.

    An empty text is a missing value in both columns. surprise: float32[16384], nats of a trigram of bytes, by
    its hash: -log of the share of its last byte after the first two.
    """

    suffixes: ClassVar[tuple[str, ...]] = (": length", ": surprise")

    surprise: F4

    @classmethod
    def fit(cls, texts: Values) -> Self:
        """Count trigrams and their contexts in the first 4,096 bytes of each text.

        Every count is discounted by 0.75, so that a trigram seen once is hardly less surprising than one
        never seen: the texts of fit are then as surprising as others. What was taken off is the share of
        unseen trigrams, divided evenly among 256 bytes.

        Source:  Ney, Essen, Kneser, Computer Speech and Language 8 (1994), absolute discounting.
        """
        count, context = np.zeros(BUCKETS), np.zeros(1 << 16)
        for text in texts:
            count += np.bincount(_trigrams(text), minlength=BUCKETS)
            context += np.bincount(_contexts(text), minlength=1 << 16)
        nats = np.zeros(BUCKETS)
        for text in texts:
            at = _trigrams(text)
            share = (count[at] - DISCOUNT) / np.maximum(context[_contexts(text)], count[at])
            nats += np.bincount(at, -np.log(share), minlength=BUCKETS)
        seen = count > 0
        unseen = -math.log(DISCOUNT * max(int(seen.sum()), 1) / max(float(count.sum()), 1.0) / 256)
        return cls(read_only(np.where(seen, nats / np.maximum(count, 1), unseen).astype(np.float32)))

    def write(self, texts: NDArray[Any], columns: F4) -> None:
        """Write log(1 + bytes) and nats a byte: object[n] of bytes into float32[n, 2].

        Cost:    O(bytes), at most 4,096 a text: about 10 us for a text of 200.
        """
        for i, text in enumerate(texts.tolist()):
            if text:
                columns[i, 0] = math.log1p(len(text))
                columns[i, 1] = self.surprise.take(_trigrams(text)).mean(dtype=np.float64)
            else:
                columns[i] = np.nan


def text_column(texts: Values) -> Categories | FreeText:
    """The texts of n rows as categories if their values repeat, else as free text.

    Categories: at least eight rows a category on average, and at most 1 % of the rows (or two) hold a
    category that no other row holds, which estimates how many of the next rows will hold an unseen one.
    Identifiers and names are free text: they hardly repeat. Trigrams are learnt from every second row, so
    that half of the rows that the table's detector is fitted on are as surprising as rows to come.

    Source:  Good, Biometrika 40 (1953), for the share of the unseen.
    """
    counts = Counter(texts).values()
    singletons = sum(count == 1 for count in counts)
    few = len(counts) * ROWS_PER_CATEGORY <= len(texts)
    return (
        Categories.fit(texts)
        if few and singletons <= max(FEW_SINGLETONS, SINGLETONS * len(texts))
        else FreeText.fit(texts[::2])
    )


def _codes(text: bytes) -> NDArray[np.uint32]:
    """uint32[2 + min(bytes, 4096)]: two boundary bytes, then the text's."""
    return np.frombuffer(BOUNDARY + text[:READ_BYTES], np.uint8).astype(np.uint32)


def _trigrams(text: bytes) -> NDArray[np.uint32]:
    """uint32[min(bytes, 4096)]: the hash of each byte with the two before it, in [0, 16384)."""
    codes = _codes(text)
    mixed = codes[:-2] * HASHES[0] + codes[1:-1] * HASHES[1] + codes[2:] * HASHES[2]
    return np.asarray(mixed >> HASH_BITS, np.uint32)


def _contexts(text: bytes) -> NDArray[np.uint32]:
    """uint32[min(bytes, 4096)]: the two bytes before each byte, as one number."""
    codes = _codes(text)
    return np.asarray((codes[:-2] << 8) | codes[1:-1], np.uint32)
