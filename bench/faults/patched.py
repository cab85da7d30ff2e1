"""Replaces an attribute of one object, until the fault is taken out."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Undo: TypeAlias = Callable[[], Awaitable[None]]
"""Takes a fault out."""


def patched(of: Any, name: str, value: Any, released: threading.Event | None = None) -> Undo:
    """Replaces an attribute of one object. released: ends what still hangs when the fault is taken out."""
    old = getattr(of, name)
    setattr(of, name, value)

    async def undo() -> None:
        setattr(of, name, old)
        if released is not None:
            released.set()

    return undo
