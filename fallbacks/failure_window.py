"""The share of a model's recent calls that failed or were slow, and whether one caller may explain it.

A count of consecutive failures misses a model that fails every second call. So a circuit breaker also counts
over a window: the last `calls` calls that ended within the last `window_s` seconds. Two shares are judged:
failed calls, and late ones, which are the failed and the slow together.

No caller may take the model from the others. So a share that is reached counts as exceeded only if it is
reached as well without the calls of any one caller; otherwise that caller's rows may be at fault.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, IntEnum, auto


class CallEnd(Enum):
    """How a call ended."""

    ANSWERED = auto()
    SLOW = auto()
    FAILED = auto()


class Excess(IntEnum):
    """Whether a share reaches its limit, and if so, whether it does without any one caller."""

    NONE = 0
    OF_ONE_CALLER = 1
    OF_ALL = 2


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """The window and its limits. Raises ValueError for a window or share that cannot be.

    calls: the most calls in the window; window_s: seconds after which a call leaves it; least_calls: fewer
    calls are not judged; failed_share, late_share: in (0, 1], from which on the share is too high;
    slow_s: seconds beyond which an answer is slow.
    """

    calls: int = 100
    window_s: float = 30.0
    least_calls: int = 20
    failed_share: float = 0.5
    late_share: float = 0.9
    slow_s: float = math.inf

    def __post_init__(self) -> None:
        if not 1 <= self.least_calls <= self.calls:
            raise ValueError(f"least_calls={self.least_calls}: at least 1, and at most calls={self.calls}")
        if not (self.window_s > 0 and self.slow_s > 0):
            raise ValueError(f"window_s={self.window_s}, slow_s={self.slow_s}: above 0")
        if not (0 < self.failed_share <= 1 and 0 < self.late_share <= 1):
            raise ValueError(f"shares {self.failed_share}, {self.late_share}: above 0, at most 1")


class _Kind:
    """The calls of one kind in the window: how many, and in how many each caller had a part."""

    def __init__(self, share: float) -> None:
        self.share, self.count = share, 0
        self.of_caller: Counter[str] = Counter()

    def add(self, callers: Collection[str], step: int) -> None:
        """Counts a call (step 1), or one that leaves the window (step -1)."""
        self.count += step
        for caller in callers:
            self.of_caller[caller] += step
            if not self.of_caller[caller]:
                del self.of_caller[caller]

    def excess(self, n: int, least: int) -> Excess:
        """n: calls of all kinds in the window."""
        if n < least or self.count < self.share * n:
            return Excess.NONE
        most = max(self.of_caller.values(), default=0)
        reached_without = n - most >= least and self.count - most >= self.share * (n - most)
        return Excess.OF_ALL if reached_without else Excess.OF_ONE_CALLER


class FailureWindow:
    """The calls in the window of one model."""

    def __init__(self, limits: WindowLimits) -> None:
        self._limits = limits
        self._most_calls, self._window_s = limits.calls, limits.window_s
        self.clear()

    def clear(self) -> None:
        """Forgets every call."""
        self._calls: deque[tuple[float, CallEnd, Collection[str]]] = deque()
        self._failed, self._late = _Kind(self._limits.failed_share), _Kind(self._limits.late_share)
        self._added = self._ask_at = 0

    def add(self, now_s: float, end: CallEnd, callers: Collection[str] = ()) -> None:
        """Counts a call that ended now.

        Args:   now_s: seconds, not before those of the last call; callers: all that had a part in it.
        Cost:   about 1 us for a call that is answered in time; of others O(callers).
        """
        calls = self._calls
        self._added += 1
        if end is CallEnd.ANSWERED:
            calls.append((now_s, end, ()))
        else:
            callers = frozenset(callers)
            calls.append((now_s, end, callers))
            self._count(end, callers, 1)
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Drops the calls that have left the window."""
        calls, before_s = self._calls, now_s - self._window_s
        while calls and (len(calls) > self._most_calls or calls[0][0] <= before_s):
            _, left, of = calls.popleft()
            if left is not CallEnd.ANSWERED:
                self._count(left, of, -1)

    def excess(self, now_s: float) -> Excess:
        """The worse of both shares in the window now, though no call has ended since. Cost: O(callers)."""
        self._forget(now_s)
        n, least = len(self._calls), self._limits.least_calls
        return max(self._failed.excess(n, least), self._late.excess(n, least))

    def asks_known_rows(self) -> bool:
        """Whether to ask the known rows about an excess of one caller: once for every `least_calls` calls."""
        if self._added < self._ask_at:
            return False
        self._ask_at = self._added + self._limits.least_calls
        return True

    def _count(self, end: CallEnd, callers: Collection[str], step: int) -> None:
        self._late.add(callers, step)
        if end is CallEnd.FAILED:
            self._failed.add(callers, step)
