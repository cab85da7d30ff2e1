"""Runs a coroutine from synchronous code, also where an event loop already runs in the calling thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_thread(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of a coroutine, run on a new event loop in a new thread; blocks meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(main())).result()
