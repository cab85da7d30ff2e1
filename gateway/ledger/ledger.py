"""What replicas and a ledger say to each other: wants in, grants out, many keys in one batch.

A ledger keeps one bucket a key (`guards/gcra.py`) for all replicas. A replica leases units of it ahead and
spends them by itself. All that is uncertain counts against the caller, so that no failure makes a budget:

* What was granted is charged, whether the reply arrives or not.
* A batch has a number, and a ledger does nothing for one that it has seen: what is owed is charged once and
  what is given back is given once, however often the batch is sent.
* A ledger that may have forgotten something (a restart without its file, a clock that has jumped) raises its
  `floor`: every bucket is empty at that time, and fills at its rate from then on. So a new ledger gives no
  burst, and no caller is locked out: the first rows of a principal are spent from a replica's initial slice.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

MOST_WANTS: Final = 500
"""Keys in one batch: a ledger is busy with one for a few milliseconds."""


class Want(NamedTuple):
    """key: 16 bytes that name a bucket. units: to be granted, up to what the bucket holds. owed: already
    spent, and charged whatever the bucket holds; given back if negative. period_s, tolerance_s: its limit."""

    key: bytes
    units: float
    owed: float
    period_s: float
    tolerance_s: float


class Batch(NamedTuple):
    """replica: 16 bytes that no other process uses. number: 1, 2, ...; the same again for the same batch."""

    replica: bytes
    number: int
    wants: tuple[Want, ...]


class Grant(NamedTuple):
    """units: charged to the bucket and the replica's now. left: what the bucket still holds; negative if it
    is overdrawn, by what was owed."""

    units: float
    left: float


class Ledger(Protocol):
    """Buckets that replicas share."""

    async def lease(self, batch: Batch) -> list[Grant]:
        """One grant a want, in order. Raises whatever keeps it from answering; then it may have charged."""
        ...

    async def close(self) -> None:
        """Lets go of files and connections."""
        ...
