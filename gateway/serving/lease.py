"""A dead-man's lease: a replica that nothing can command any more stops by itself.

    | state   | event                                        | next    |
    |---------|----------------------------------------------|---------|
    | held    | the controller answers                       | held    |
    | held    | `length_s` since the last answered call began | expired |
    | expired | the controller answers                       | held    |

A length of 0 never expires. The lease runs from the moment at which the answered call began: an answer that
was long under way says nothing of the time since. It is no stop of an operator, and so is not latched: once
the controller answers again, so does the replica.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

CALLS_A_LEASE: Final = 4
LONGEST_WAIT_S: Final = 1.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """length_s: 0 for one that never expires; renewed_s: when the last call began that was answered."""

    length_s: float
    renewed_s: float

    def expires_s(self) -> float:
        return self.renewed_s + self.length_s if self.length_s else math.inf

    def is_held(self, now_s: float) -> bool:
        """Whether the replica may answer. `now_s` must not go back."""
        return now_s < self.expires_s()

    def renewed(self, began_s: float) -> Lease:
        """After an answer to a call that began then."""
        return replace(self, renewed_s=max(self.renewed_s, began_s))

    def wait_s(self, now_s: float) -> float:
        """How long a call may take, and then to wait before the next: a few fit into the lease."""
        until_next = min(LONGEST_WAIT_S, self.length_s / CALLS_A_LEASE if self.length_s else LONGEST_WAIT_S)
        left = self.expires_s() - now_s
        return min(until_next, left) if left > 0 else until_next


async def keep_lease(
    call: Callable[[], Awaitable[object]],
    length_s: Callable[[], float],
    hold: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Until cancelled: calls the controller, and stops this replica while the lease has expired.

    Args:    call: returns once the controller has answered; length_s: of the policy in force, in seconds;
             hold: stops everything here for the reason that it is given, until that is empty.
    Cost:    one call a second, or four a lease.
    """
    lease, held = Lease(length_s(), clock()), True
    while True:
        lease = replace(lease, length_s=length_s())
        began_s = clock()
        if lease.length_s and await _answered(call, lease.wait_s(began_s)):
            lease = lease.renewed(began_s)
        elif not lease.length_s:
            lease = lease.renewed(began_s)  # one that is set later begins then
        if held != lease.is_held(clock()):
            held = not held
            why = f"the controller has not answered for {lease.length_s:g} s (serving.controller_lease_s)"
            log.log(logging.INFO if held else logging.ERROR, "the controller answers" if held else why)
            hold("" if held else why)
        await sleep(lease.wait_s(clock()))


async def _answered(call: Callable[[], Awaitable[object]], within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await call()
    except Exception:  # noqa: BLE001 - whatever it is, the controller has not answered
        return False
    return True
