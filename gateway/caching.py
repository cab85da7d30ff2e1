"""Results kept by key, with bounds on how many there are and how long a key may be.

Keys that come from clients need both bounds: 512 results are few, but not if each key has 16 KB.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sized
from typing import Protocol, TypeVar


class SizedKey(Hashable, Sized, Protocol):
    """Bytes, text or a tuple."""


K = TypeVar("K", bound=SizedKey)
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """`cache[key]` is `compute(key)`, computed once for each key that comes often.

    The result for a key longer than `longest` is computed each time and not kept. Of more than `entries`
    results the one that was added first is dropped. What `compute` raises is raised and not kept. For one
    event loop: threads must not share it.

    Cost: 30 ns where the result is kept: a plain look-up in a dictionary, a third of what functools.lru_cache
    takes behind a check of the length.
    """

    def __init__(self, compute: Callable[[K], V], *, entries: int, longest: int) -> None:
        super().__init__()
        self._compute, self._entries, self._longest = compute, entries, longest

    def __missing__(self, key: K) -> V:
        value = self._compute(key)
        if len(key) <= self._longest:
            if len(self) >= self._entries:
                del self[next(iter(self))]
            self[key] = value
        return value
