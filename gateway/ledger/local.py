"""A ledger in this process, for one replica; also the inside of the one in a Ray actor."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.ledger.journal import Journal
from gateway.ledger.ledger import Batch, Grant


class LocalLedger:
    """Buckets in a file that one process has open at a time. Its thread `ledger` waits for the disk."""

    def __init__(self, path: Path) -> None:
        """Blocks. Raises as `Journal`."""
        self._journal = Journal(path)
        self._thread = ThreadPoolExecutor(1, "ledger")

    async def lease(self, batch: Batch) -> list[Grant]:
        """As `Ledger`. Raises ValueError for wants that are no numbers, and OSError.

        Nothing is granted then.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._lease, batch)

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        self._journal.close()

    def _lease(self, batch: Batch) -> list[Grant]:
        journal = self._journal
        grants, changed = journal.book.lease(batch, journal.now_s())
        if batch.wants:
            journal.append(batch.replica, batch.number, changed)
        return grants
