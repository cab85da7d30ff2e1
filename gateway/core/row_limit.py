"""How many rows may be under way at once: an adaptive limit, shared out among callers and priorities.

More rows than the pipeline can decide only wait. So the limit follows the measured waiting time, by the
gradient of Netflix's concurrency-limits (`Gradient2Limit`) and of Envoy's adaptive concurrency filter:

    gradient  = (tolerated_s + deciding_s) / (waited_s + deciding_s), from 1/2 to 1
    new limit = gradient * limit + sqrt(limit), smoothed

Deviations. Both estimate the waiting time from a minimum of past latencies, which drifts and has to be probed
by starving the service; here each batch reports how long its first row waited and how long it was decided,
so the gradient needs no baseline. A wait is tolerated that is no longer than deciding takes, since those rows
form the next batch, and one up to `TOLERATED_SHARE` of the deadline, which is what a caller allows for. The
unit is a row, not a request. And the rows under way, in batches as they are now, may take no longer than
`DEADLINE_SHARE` of the deadline, so that what is taken is answered in time.

Who gets in, where the limit is reached:

* a caller that has less than its share, the limit divided by the callers that have rows under way. So a
  greedy caller takes its share and no more, and a polite one is not refused. All shares together are the
  limit, so no more than twice the limit is ever under way;
* of lower priorities the less the lower: `PRIORITY_SHARES`. So they are refused first, and they take no room
  from higher ones, whose rows do not wait behind theirs.

A request that finds nothing under way is always taken, whatever its size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gateway.core.batch_size import BatchSize
from gateway.core.deadline import now_s

PRIORITY_SHARES = (1.0, 0.8, 0.6, 0.4)
"""How much of the limit rows of each priority may fill, from the highest on."""
LOWEST = len(PRIORITY_SHARES)
"""Lower priorities count as this one."""
TOLERATED_SHARE, DEADLINE_SHARE = 0.4, 0.6
LEAST_ROWS, FIRST_ROWS, MOST_ROWS = 8, 256, 65_536
"""The limit starts at the second, and stays between the others."""
SMOOTHING, REQUEST_SMOOTHING = 0.2, 0.05
"""The weights of the newest batch and request."""
REFUSED_OVER_S = 1.0
"""Over so many seconds the rows are counted that were refused."""
LEAST_RETRY_S, LONGEST_RETRY_S = 2.0, 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """The part of a limit that rows of one priority may fill."""

    limit: RowLimit
    priority: int
    share: float

    @property
    def free(self) -> int:
        """How many more requests fit now, of as many rows as they have had lately."""
        rows = int(self.limit.rows * self.share) - self.limit.ahead(self.priority)
        return int(rows / self.limit.request_rows)

    @property
    def idle(self) -> bool:
        """Whether at least half of it is free."""
        return 2 * self.limit.ahead(self.priority) <= self.limit.rows * self.share


class RowLimit:
    """Counts rows under way, for one event loop.

    deadline_s: of a request, in seconds; a change holds from the next batch on. size: of batches. rows: the
    limit now; under_way: rows of every priority; nearly_full_at: how many of them may be too many for rows of
    some priority. refused_total: rows that were refused, each request that was not parsed counted as one;
    refused_s: when the last of them was, in loop seconds. request_rows: of a request, smoothed.
    """

    def __init__(self, deadline_s: float, size: BatchSize) -> None:
        self.deadline_s = deadline_s
        self._size = size
        self._rooms = tuple(Room(self, 1 + i, share) for i, share in enumerate(PRIORITY_SHARES))
        self._by_priority = [0] * len(PRIORITY_SHARES)
        self._by_caller: dict[str, int] = {}
        self.under_way = 0
        # Smoothed: the time and rows of a batch, and the time from the queue to the answer.
        self._batch_s = self._batch_rows = self._answer_s = self._row_s = 0.0
        self._limit = float(FIRST_ROWS)
        self._adopt()
        self._refused_rows, self.refused_s = 0.0, -math.inf
        self.refused_total = 0
        self.request_rows = 1.0

    def _adopt(self) -> None:
        """Takes over what was learned into what every request reads."""
        self._row_s = self._batch_s / max(self._size.rows, self._batch_rows)
        in_time = DEADLINE_SHARE * self.deadline_s / self._row_s if self._row_s else math.inf
        self.rows = max(LEAST_ROWS, int(min(self._limit, in_time)))
        self._shares = [int(self.rows * share) for share in PRIORITY_SHARES]
        self.nearly_full_at = self._shares[-1]

    def ahead(self, priority: int) -> int:
        """How many of the rows under way are of this priority or a higher one."""
        return self._by_priority[0] if priority == 1 else sum(self._by_priority[:priority])

    def room_of(self, priority: int) -> Room:
        """The room of a priority, from 1, the highest."""
        return self._rooms[min(priority, LOWEST) - 1]

    def time_s(self, rows: float) -> float:
        """Seconds that so many rows take in full batches; 0 before the first batch."""
        return rows * self._row_s

    def has_room(self, caller: str, rows: int, left_s: float, priority: int = 1) -> bool:
        """Whether these rows may be taken now, and can be answered in `left_s` seconds. Cost: 1 us."""
        ahead = self._by_priority[0] if priority == 1 else self.ahead(priority)
        if not ahead:
            return True
        if ahead * self._row_s > left_s or self._answer_s > left_s:
            return False
        limit = self._shares[priority - 1 if priority < LOWEST else LOWEST - 1]
        if ahead + rows <= limit:
            return True
        own = self._by_caller.get(caller, 0)
        return own + rows <= limit / (len(self._by_caller) + (not own))

    def take(self, caller: str, rows: int, priority: int) -> None:
        """Counts rows, which must be `released`."""
        self.request_rows += REQUEST_SMOOTHING * (rows - self.request_rows)
        self.under_way += rows
        self._by_priority[priority - 1 if priority < LOWEST else LOWEST - 1] += rows
        self._by_caller[caller] = self._by_caller.get(caller, 0) + rows

    def release(self, caller: str, rows: int, priority: int) -> None:
        """Ends rows that were counted. Callers without any use no memory."""
        self.under_way -= rows
        self._by_priority[priority - 1 if priority < LOWEST else LOWEST - 1] -= rows
        left = self._by_caller[caller] - rows
        if left:
            self._by_caller[caller] = left
        else:
            del self._by_caller[caller]

    def refuse(self, rows: int) -> float:
        """Counts rows that are refused; returns the seconds after which they may be sent again.

        That is how long all rows would take that were refused in the last second: if they came back sooner,
        they would be refused again.
        """
        self.refused_total += rows
        now = now_s()
        decay = math.exp(-(now - self.refused_s) / REFUSED_OVER_S)
        self._refused_rows, self.refused_s = self._refused_rows * decay + rows, now
        return min(max(self.time_s(self._refused_rows), LEAST_RETRY_S), LONGEST_RETRY_S)

    def observe(self, rows: int, waited_s: float, deciding_s: float, spent_s: float) -> None:
        """Learns of one batch.

        waited_s: how long the first of its rows waited; deciding_s: from then to their decisions; spent_s: of
        that, since the batch before it was decided.
        """
        keep, answer_s = 1.0 - SMOOTHING, waited_s + deciding_s
        self._batch_s = keep * self._batch_s + SMOOTHING * spent_s
        self._batch_rows = keep * self._batch_rows + SMOOTHING * rows
        self._answer_s = keep * self._answer_s + SMOOTHING * answer_s
        gradient = 1.0
        if waited_s > (tolerated_s := max(deciding_s, TOLERATED_SHARE * self.deadline_s)):
            gradient = max(0.5, (tolerated_s + deciding_s) / answer_s)
        new = gradient * self._limit + math.sqrt(self._limit)
        if new < self._limit or self.under_way >= self._limit / 2:  # else nothing shows that more would fit
            self._limit = min(max(keep * self._limit + SMOOTHING * new, LEAST_ROWS), MOST_ROWS)
        self._adopt()
