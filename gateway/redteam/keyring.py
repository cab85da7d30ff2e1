"""The keys of one thief that keeps to `Retry-After`: it asks with one that need not wait, if there is one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.core.rows import F8
from gateway.redteam.answers import Answer, Model
from gateway.redteam.run import Limits, Over, Tally, sent

PATIENCE = 3
"""So many waits in turn that did not help, as with a full share of the review queue, and it waits no more."""
LEAST_PACED = 5


class Keyring:
    """Asks one row at a time, with the keys in turn. What it sends and waits is counted in the tally."""

    def __init__(self, models: Sequence[Model], limits: Limits, tally: Tally) -> None:
        self._models, self._limits, self._tally = models, limits, tally
        self._free_s = [0.0] * len(models)
        self._turn = -1
        self._in_vain = 0
        self._refused_s: float | None = None
        self._longest_s = 0.0
        self._answered = 0

    def ask(self, row: F8) -> Answer:
        """One row's answer: with each key once, and once more after a wait, while it is asked to wait.

        Raises:  Over at a limit, also where the time that is left is shorter than the wait; Problems.
        """
        answer = self._sent(row)
        for _ in self._models:
            if not answer.retry_after_s or not self._waits:
                break
            self._wait()
            answer = self._sent(row)
        return answer

    def pace(self) -> float | None:
        """Rows answered a second since the first row that was told to wait; None if none was.

        Where fewer than five were: as many a second as keys, over the longest wait, which is more than come.
        """
        if self._refused_s is None:
            return None
        if self._answered >= LEAST_PACED:
            return self._answered / max(time.monotonic() - self._refused_s, 1e-3)
        return len(self._models) / self._longest_s

    @property
    def _waits(self) -> bool:
        return self._limits.obey and self._in_vain < PATIENCE

    def _wait(self) -> None:
        """Until a key is free, if none is."""
        wait_s = min(self._free_s) - time.monotonic()
        if wait_s <= 0:
            return
        if wait_s > self._limits.left_s:
            raise Over("time")
        self._tally.waited_s += wait_s
        self._in_vain += 1
        time.sleep(wait_s)

    def _sent(self, row: F8) -> Answer:
        """By the next key that is free, or the next one."""
        keys, now_s = range(self._turn + 1, self._turn + 1 + len(self._models)), time.monotonic()
        in_turn = [key % len(self._models) for key in keys]
        self._turn = next((key for key in in_turn if self._free_s[key] <= now_s), in_turn[0])
        answer = sent(self._models[self._turn], row, self._limits, self._tally)
        if wait_s := answer.retry_after_s:
            now_s = time.monotonic()
            self._free_s[self._turn] = now_s + wait_s
            self._longest_s = max(self._longest_s, wait_s)
            self._refused_s = now_s if self._refused_s is None else self._refused_s
        else:
            self._in_vain = 0
            self._answered += self._refused_s is not None and answer.label is not None
        return answer
