"""Decision ids: 96 random bits in hexadecimal, as unguessable as the system's generator makes them."""

from __future__ import annotations

import os

ID_BYTES = 12
ID_DIGITS = 2 * ID_BYTES
IDS_PER_READ = 256


class Ids:
    """A source of ids, which reads random bits for many at a time. Not to be shared with a forked process.

    Cost: 0.1 us an id, against 1.1 us for `secrets.token_hex`, which is a system call each.
    """

    __slots__ = ("_ready",)

    def __init__(self) -> None:
        self._ready: list[str] = []

    def new(self) -> str:
        """A new id."""
        if not self._ready:
            digits = os.urandom(ID_BYTES * IDS_PER_READ).hex()
            self._ready = [digits[at : at + ID_DIGITS] for at in range(0, len(digits), ID_DIGITS)]
        return self._ready.pop()
