"""The signals that end a gateway: Ctrl-C and SIGTERM, from its first second on.

A shell without job control starts a command in the background with SIGINT ignored, which Python keeps, and
Ray replaces the handler of SIGTERM. Either would lose a signal that comes while Ray starts, or leave what has
been started behind.
"""

from __future__ import annotations

import signal
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def raise_at_stop_signals() -> None:
    """From now on, either signal raises KeyboardInterrupt in the main thread, which must be the caller's."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
