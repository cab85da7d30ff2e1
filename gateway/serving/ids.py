"""Decision ids: 96 random bits in hexadecimal, as unguessable as the system's generator makes them."""

from __future__ import annotations

import os

BYTES = 12
DIGITS = 2 * BYTES
AT_A_TIME = 256


class Ids:
    """A source of ids, which reads random bits for many at a time. Not to be shared with a forked process.

    Cost: 0.1 us an id, against 1.1 us for `secrets.token_hex`, which is a system call each.
    """

    __slots__ = ("_ready",)

    def __init__(self) -> None:
        self._ready: list[str] = []

    def new(self) -> str:
        """An id that was never given before."""
        if not self._ready:
            digits = os.urandom(BYTES * AT_A_TIME).hex()
            self._ready = [digits[at : at + DIGITS] for at in range(0, len(digits), DIGITS)]
        return self._ready.pop()
