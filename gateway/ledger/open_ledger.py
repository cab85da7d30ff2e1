"""From a policy's `ledger:` to a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.ledger.ledger import Ledger
from gateway.ledger.local import LocalLedger
from gateway.ledger.redis_ledger import RedisLedger

FILE: Final = "budgets"
SCHEMES: Final = ("redis://", "rediss://", "unix://")


def open_ledger(where: str, folder: Path) -> Ledger:
    """where: `local`, `ray`, or the URL of a Redis. folder: for state, of one process if `local`. Blocks.

    Raises:  ValueError for another text; ImportError without the extra `redis`; OSError, and BlockingIOError
             if another process uses the folder. A Redis that cannot be reached raises nothing here.
    """
    match where:
        case "local":
            return LocalLedger(folder / FILE)
        case "ray":
            from gateway.ledger.ray_ledger import RayLedger  # Ray reads its settings when it is imported

            return RayLedger(folder / FILE)
        case _ if where.startswith(SCHEMES):
            return RedisLedger(where)
    raise ValueError(f"ledger: {where.split(':')[0]!r}; expected local, ray, redis://, rediss:// or unix://")
