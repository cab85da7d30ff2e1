"""A coroutine from code that cannot wait for one, because a loop may run in its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def apart(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine to its end on a loop of its own in a thread of its own, and blocks meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(main())).result()
