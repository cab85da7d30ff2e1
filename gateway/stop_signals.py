"""The signals that end a gateway: Ctrl-C and SIGTERM, from its first second on.

A shell without job control starts a command in the background with SIGINT ignored, which Python keeps, and
Ray replaces the handler of SIGTERM. Either would lose a signal that comes while Ray starts, or leave what has
been started behind. So would the exception alone: Python drops one that is raised in a hook of fork or in a
finalizer ("Exception ignored in"). What starts something long asks afterwards (`raise_if_stopped`).
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


def raise_at_stop_signals() -> None:
    """From now on, either signal raises KeyboardInterrupt in the main thread, which must be the caller's."""
    for number in STOP_SIGNALS:
        signal.signal(number, _raise)


def raise_if_stopped() -> None:
    """Raises KeyboardInterrupt if either signal has come since `raise_at_stop_signals` was first called."""
    if _received:
        raise KeyboardInterrupt


def _raise(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt
