"""Delivers records to one sink: a bounded buffer, slices on the event loop, a thread that writes.

Adding a record only appends it to the buffer. When the buffer is full, or the sink fails, the record is
counted as lost, and the next flush passes that number to the sink (`sink.py` has the guarantees).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque

from fallbacks.worker import Worker
from gateway.core.record import AuditRecord
from gateway.telemetry.sink import AuditSink

DELIVER_EVERY_S = 0.1
SLICE_ROWS = 32
"""Rows that are accepted before other tasks of the event loop run."""
FLUSH_ROWS = 2000
FLUSH_TIMEOUT_S = 2.0
"""A flush that takes longer at shutdown is abandoned."""
log = logging.getLogger(__name__)


class Delivery:
    """Delivers records to one sink, which may fail or hang without any effect on anything else.

    capacity: rows that may wait for the sink; the record that reaches it is still taken as a whole.
    abandoned: whether it has ended without the sink, which hung.
    """

    def __init__(self, sink: AuditSink, capacity: int) -> None:
        self._sink = sink
        self._name = type(sink).__name__
        self._capacity = capacity
        self._buffer: deque[tuple[AuditRecord, int]] = deque()
        self._buffered_rows = 0
        self._lock = threading.Lock()  # held during `accept` and `flush`
        self._accepted = 0  # records since the last flush
        # Two counters, because the first changes on the event loop and the second in the thread that writes.
        self._never_accepted = self._never_flushed = 0
        self._stated = 0  # how many of the lost ones the sink has stated
        self._failing = False
        self.abandoned = False

    @property
    def lost(self) -> int:
        """How many records the sink will never have."""
        return self._never_accepted + self._never_flushed

    def add(self, record: AuditRecord, rows: int) -> None:
        """Never blocks and never raises. rows: how many lines it may become. Cost: 0.1 us."""
        if self._buffered_rows >= self._capacity or self.abandoned:
            self._never_accepted += 1
        else:
            self._buffer.append((record, rows))
            self._buffered_rows += rows

    async def run(self) -> None:
        """Delivers until cancelled, then delivers the rest. Holds the event loop for one slice at a time."""
        worker = Worker(f"audit-{self._name}")
        try:
            while True:
                await asyncio.sleep(DELIVER_EVERY_S)
                while self._buffer:
                    await self._deliver(worker)
        finally:
            await self._finish(worker)

    def drain(self) -> None:
        """Delivers what is buffered, in the calling thread. Blocks while the sink writes."""
        while self._buffer:
            rows = 0
            while self._buffer and rows < FLUSH_ROWS:
                rows += self._accept_slice()
            self._flush()
        if not self.abandoned:
            self._flush()  # states losses of the last flush

    async def _deliver(self, worker: Worker) -> None:
        """Passes the next records to the sink and flushes them in the thread."""
        rows = 0
        while self._buffer and rows < FLUSH_ROWS:
            rows += self._accept_slice()
            await asyncio.sleep(0)
        await worker.call(self._flush)

    async def _finish(self, worker: Worker) -> None:
        """Delivers what is left, unless the sink hangs.

        It runs in a task that has been cancelled, where `asyncio.timeout` raises CancelledError in Python
        before 3.11.4 instead of TimeoutError; `asyncio.wait_for` does not depend on that.
        """
        try:
            await self._flush_in(worker)  # after the flush that was under way, if one was
            while self._buffer:
                await asyncio.wait_for(self._deliver(worker), FLUSH_TIMEOUT_S)
            await self._flush_in(worker)  # states losses of the last flush
        except TimeoutError:
            self._abandon()
        finally:
            worker.close(0.0 if self.abandoned else FLUSH_TIMEOUT_S)

    async def _flush_in(self, worker: Worker) -> None:
        """One flush in the thread. Raises TimeoutError if it hangs."""
        await asyncio.wait_for(worker.call(self._flush), FLUSH_TIMEOUT_S)

    def _accept_slice(self) -> int:
        """Moves the next few records from the buffer to the sink; how many rows they have."""
        records: list[AuditRecord] = []
        rows = 0
        while self._buffer and rows < SLICE_ROWS:
            record, record_rows = self._buffer.popleft()
            records.append(record)
            rows += record_rows
        self._buffered_rows -= rows
        with self._lock:
            if not self._accept(records) and len(records) > 1:
                for record in records:
                    self._accept([record])
        return rows

    def _accept(self, records: list[AuditRecord]) -> bool:
        """Whether the sink accepted the records. A single record that it rejects is lost."""
        try:
            self._sink.accept(records)
        except Exception:  # noqa: BLE001 - whatever a sink raises, nothing else may fail
            self._report_failure()
            self._never_accepted += len(records) == 1
            return False
        self._accepted += len(records)
        return True

    def _flush(self) -> None:
        with self._lock:
            records, lost = self._accepted, self.lost
            missed = lost - self._stated
            if not records and not missed:
                return
            try:
                self._sink.flush(missed)
            except Exception:  # noqa: BLE001 - as in _accept
                self._report_failure()
                self._never_flushed += records
            else:
                self._stated = lost
                if not missed:
                    self._report_success()
            self._accepted = 0

    def _report_failure(self) -> None:
        if not self._failing:
            log.exception("%s fails; the records that it misses are counted", self._name)
        self._failing = True

    def _report_success(self) -> None:
        if self._failing:
            log.warning("%s works again; it misses %d records", self._name, self.lost)
        self._failing = False

    def _abandon(self) -> None:
        """Ends without the sink, which still hangs: what it has not written counts as lost."""
        self.abandoned = True
        left = len(self._buffer) + self._accepted
        self._buffer.clear()
        self._buffered_rows = 0
        self._never_accepted += left
        log.error("%s hangs at shutdown: %d records are lost", self._name, left)
