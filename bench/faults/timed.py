"""What happens to the gateway while it serves, some time after the first request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

EVENT_AFTER_S: Final = 0.3


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """What happens while rows are served; its end is awaited."""
    task = asyncio.create_task(work)
    yield
    await task
