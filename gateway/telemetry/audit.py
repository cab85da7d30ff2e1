"""Finished requests, of which the latest are kept in memory, and acts: all are delivered to every sink.

Off the request path, bounded, and losses are counted. Read `sink.py` first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from gateway.core.record import AdminAct, RequestRecord
from gateway.telemetry.delivery import Delivery
from gateway.telemetry.sink import AuditSink

BUFFER_ROWS: Final = 200_000
RECORD_BYTES: Final = 1024
ROW_BYTES: Final = 1024
"""What a record and each of its rows count in memory: decisions, and their share of a pass's findings."""


class Audit:
    """Keeps the latest records for `GET /decisions/{id}`, and delivers all of them to the sinks."""

    def __init__(
        self,
        sinks: Sequence[AuditSink],
        *,
        buffer: int = BUFFER_ROWS,
        keep: int = 10_000,
        keep_bytes: int = 64 * 2**20,
    ) -> None:
        """buffer: how many rows may wait for each sink; keep, keep_bytes: how many records can be found."""
        self._deliveries = [Delivery(sink, buffer) for sink in sinks]
        self._keep, self._keep_bytes = keep, keep_bytes
        self.kept_bytes = 0
        self._kept: OrderedDict[str, RequestRecord] = OrderedDict()

    @property
    def lost(self) -> int:
        """The largest number of records that one sink has lost."""
        return max((delivery.lost for delivery in self._deliveries), default=0)

    @property
    def abandoned(self) -> bool:
        """Whether a sink hung at the end, so that what it had accepted may be missing."""
        return any(delivery.abandoned for delivery in self._deliveries)

    def take(self, record: RequestRecord) -> None:
        """Never blocks and never raises. Cost: 0.4 us."""
        kept, rows = self._kept, len(record.decisions)
        if record.id in kept:
            self.kept_bytes -= _size_of(kept.pop(record.id))
        kept[record.id] = record
        self.kept_bytes += _size_of(record)
        while len(kept) > self._keep or self.kept_bytes > self._keep_bytes:
            self.kept_bytes -= _size_of(kept.popitem(last=False)[1])
        for delivery in self._deliveries:
            delivery.add(record, rows)

    def take_act(self, act: AdminAct) -> None:
        """Never blocks and never raises."""
        for delivery in self._deliveries:
            delivery.add(act, 1)

    def find(self, record_id: str) -> RequestRecord | None:
        """One of the latest records, by the id the caller got."""
        return self._kept.get(record_id)

    async def run(self) -> None:
        """Delivers until cancelled, then delivers the rest; abandons a sink that hangs for two seconds."""
        try:
            async with asyncio.TaskGroup() as group:  # ends when every delivery has, a cancelled one too
                for delivery in self._deliveries:
                    group.create_task(delivery.run())
        finally:
            self.drain()  # of deliveries that were cancelled before their first step

    def drain(self) -> None:
        """Delivers what is buffered, in the calling thread. Blocks while sinks write."""
        for delivery in self._deliveries:
            delivery.drain()


def _size_of(record: RequestRecord) -> int:
    """What a kept record counts in bytes."""
    return RECORD_BYTES + ROW_BYTES * len(record.decisions)
