"""Limits of the requests that wait for a reviewer, in all and for each account, in number and in bytes.

A waiting request costs no time, but holds its body and its answers in memory for up to 30 seconds.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from gateway.access.in_flight import InFlight

MAX_WAITING, MAX_WAITING_PER_ACCOUNT = 1024, 64
"""A quarter of the requests that may be in flight by default."""
MAX_BYTES: Final = 128 * 2**20
MAX_BYTES_PER_ACCOUNT: Final = 32 * 2**20
"""Of the bodies of waiting requests."""


class WaitingRequests:
    """Counts requests that wait, for one event loop. Accounts without any use no memory."""

    def __init__(self) -> None:
        self._slots = InFlight(MAX_WAITING, MAX_WAITING_PER_ACCOUNT)
        self._bytes: Counter[str] = Counter()
        self._all_bytes = 0

    @property
    def total(self) -> int:
        """How many requests wait."""
        return self._slots.total

    def acquire(self, account: str, size_bytes: int) -> bool:
        """Counts a request, which must `release`, if it may wait; else False, and nothing is counted."""
        if self._all_bytes + size_bytes > MAX_BYTES:
            return False
        if self._bytes[account] + size_bytes > MAX_BYTES_PER_ACCOUNT:
            return False
        if self._slots.acquire(account) is not None:
            return False
        self._bytes[account] += size_bytes
        self._all_bytes += size_bytes
        return True

    def release(self, account: str, size_bytes: int) -> None:
        """Ends the wait of a request that was counted."""
        self._slots.release(account)
        self._all_bytes -= size_bytes
        self._bytes[account] -= size_bytes
        if not self._bytes[account]:
            del self._bytes[account]
