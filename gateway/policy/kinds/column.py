"""A guard whose score is one of the columns that are measured for every guard at once."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.batch import Batch
from gateway.core.rows import F8
from gateway.policy.kinds.kind import ReadColumns


@dataclass(frozen=True, slots=True)
class Column:
    """Reads column `index` of the measures."""

    read: ReadColumns
    index: int

    async def score(self, batch: Batch) -> F8:
        """float64[n] nats. Raises what `read` raises."""
        found: F8 = (await self.read(batch))[:, self.index]
        return found
