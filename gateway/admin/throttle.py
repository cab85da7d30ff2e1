"""How often a wrong administration token may be tried: per address, and in all.

Only the token of the environment is guarded: a person may have chosen it, so it could be guessed. Tokens that
`gateway admin add` made have 256 random bits and are looked up first, so that guesses at one lock out none
of the others. Each replica counts for itself.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

TRIES, SECONDS_A_TRY = 10, 6.0
"""Wrong tokens of one address at once, and how long one takes to be forgotten: ten a minute."""
TRIES_IN_ALL, SECONDS_A_TRY_IN_ALL = 100, 1.0
MAX_ADDRESSES = 4096


class LoginThrottle:
    """Counts wrong tokens by the generic cell rate algorithm: one time an address. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._forgotten_s: OrderedDict[str, float] = OrderedDict()
        self._all_forgotten_s = clock()

    def wait_s(self, address: str) -> float:
        """How long until another token of this address may be compared; 0 if now."""
        now_s = self._clock()
        own = self._forgotten_s.get(address, now_s) - now_s - (TRIES - 1) * SECONDS_A_TRY
        in_all = self._all_forgotten_s - now_s - (TRIES_IN_ALL - 1) * SECONDS_A_TRY_IN_ALL
        return max(own, in_all, 0.0)

    def count(self, address: str) -> None:
        """Counts a wrong token. Beyond MAX_ADDRESSES the address that was counted longest ago is dropped."""
        now_s = self._clock()
        self._forgotten_s[address] = max(self._forgotten_s.get(address, now_s), now_s) + SECONDS_A_TRY
        self._forgotten_s.move_to_end(address)
        if len(self._forgotten_s) > MAX_ADDRESSES:
            self._forgotten_s.popitem(last=False)
        self._all_forgotten_s = max(self._all_forgotten_s, now_s) + SECONDS_A_TRY_IN_ALL
