"""What a caller's requests cost before any guard sees them: CPU seconds to decode and parse bodies.

Guards charge rows. A body that is invalid never becomes rows, and a large one costs a thousand times a small
one before it does. Both are charged here, in two ways, because two things are wanted of them:

* A large **valid** body is never refused for its cost. While the machine has room, a caller that sends large
  images at full speed is served at full speed; a fixed rate would refuse it on an idle machine or admit too
  much on a busy one. Where bodies wait, the caller that has used least comes first (`rank`), so that a light
  caller does not wait behind a heavy one.
* **Invalid** bodies have a budget. An honest caller sends few, and nothing is gained by parsing more of them.
  They cost INVALID_FACTOR times their time. Beyond the budget every request of the caller is refused before
  its body is read, until the debt has leaked away.

What has been used halves every HALF_LIFE_S, so that a caller which was heavy a minute ago is as good as a new
one. Callers without a key are one address each, and all of them together are charged once more as one group:
many addresses get together what ANONYMOUS_SHARES keys get, and cannot starve a caller with a key. A caller
with a key is charged by that alone: an address may be that of a proxy or a network which many callers share.

The table holds at most ACCOUNTS callers. Beyond, the half that owes least is forgotten; what was forgotten of
callers without a key stays in the debt of their group.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from gateway.access.callers import ANONYMOUS, account_of, is_anonymous
from gateway.core.decision import Reason, Refused

Rank: TypeAlias = tuple[float, float]
"""Of a caller whose body waits, lower first: what its group has used, and what itself has; CPU seconds."""

INVALID_FACTOR = 5.0
INVALID_BURST_S, INVALID_LEAK = 2.0, 0.1
"""The debt in CPU seconds (after the factor) at which a caller is refused, and what leaks away a second."""
FAILURE_S = 0.3
"""What a body costs that ended the parser process, before the factor: another one has to be started."""
ANONYMOUS_SHARES = 8
HALF_LIFE_S = 5.0
ACCOUNTS = 4096
REQUEST_S, S_PER_BYTE = 1e-4, 4e-8
"""The cost of a small request without its body, and of each byte of it: those are not timed one by one."""
_GROUP = account_of(f"{ANONYMOUS}@")
"""The account of all callers without a key: no caller has this name."""


class _Account:
    """used_s: decayed; invalid_s: leaked; both as of at_s, on the meter's clock."""

    __slots__ = ("at_s", "invalid_s", "used_s")

    def __init__(self, now_s: float) -> None:
        self.used_s = self.invalid_s = 0.0
        self.at_s = now_s

    def advance(self, now_s: float, shares: int) -> None:
        passed_s, self.at_s = now_s - self.at_s, now_s
        self.used_s *= 0.5 ** (passed_s / HALF_LIFE_S)
        self.invalid_s = max(0.0, self.invalid_s - INVALID_LEAK * shares * passed_s)


class ParseMeter:
    """The accounts of one replica's callers. For one event loop. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def refusal(self, principal: str) -> Refused | None:
        """Why a request of this caller is refused before its body is read; None if it is not.

        Cost: 50 ns while no caller owes anything, 1 us for one that does.
        """
        if not self._accounts:
            return None
        for name in _charged(principal):
            account = self._current(name)
            over_s = 0.0 if account is None else account.invalid_s - INVALID_BURST_S * _shares(name)
            if over_s > 0.0:
                return Refused(Reason.RATE_LIMITED, over_s / (INVALID_LEAK * _shares(name)))
        return None

    def rank(self, principal: str) -> Rank:
        """Where a body of this caller stands among those that wait."""
        used_s = [0.0 if a is None else a.used_s for a in map(self._current, _charged(principal))]
        return used_s[0], used_s[-1]

    def charge_valid(self, principal: str, cpu_s: float) -> None:
        """Charges a valid body for the time that it took."""
        for name in _charged(principal):
            self._account(name).used_s += cpu_s

    def charge_invalid(self, principal: str, cpu_s: float) -> None:
        """Charges an invalid body several times the time that it took."""
        for name in _charged(principal):
            account = self._account(name)
            account.used_s += INVALID_FACTOR * cpu_s
            account.invalid_s += INVALID_FACTOR * cpu_s

    def charge_invalid_bytes(self, principal: str, body_bytes: int) -> None:
        """Charges an invalid body that was too small to be timed."""
        self.charge_invalid(principal, REQUEST_S + S_PER_BYTE * body_bytes)

    def _current(self, name: str) -> _Account | None:
        account = self._accounts.get(name)
        if account is not None:
            account.advance(self._clock(), _shares(name))
        return account

    def _account(self, name: str) -> _Account:
        account = self._current(name)
        if account is None:
            if len(self._accounts) >= ACCOUNTS:
                self._forget_half()
            account = self._accounts[name] = _Account(self._clock())
        return account

    def _forget_half(self) -> None:
        """Keeps the group and the callers that owe most. Cost: 4 ms, once in 2,048 new callers."""
        now_s = self._clock()
        for name, account in self._accounts.items():
            account.advance(now_s, _shares(name))
        kept = sorted(self._accounts, key=lambda name: (name != _GROUP, -self._accounts[name].invalid_s))[
            : ACCOUNTS // 2
        ]
        self._accounts = {name: self._accounts[name] for name in kept}


def _charged(principal: str) -> tuple[str, ...]:
    """The accounts that a caller's requests are charged to, the group's first."""
    return (_GROUP, principal) if is_anonymous(principal) else (principal,)


def _shares(name: str) -> int:
    return ANONYMOUS_SHARES if name == _GROUP else 1
