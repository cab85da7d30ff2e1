"""A ledger in Redis, for the replicas of several clusters. Needs the extra `redis` (redis-py, MIT).

Each batch is one Lua script (`lease.lua`), which Redis runs atomically, by the clock of the server. A
bucket is a key of a few bytes that expires once the bucket is full.

What a restart, a failover to another server, or a step of the server's clock of more than a minute might have
forgotten makes no budget: every bucket is empty then and fills at its rate. A smaller step forward is time
that passes, once. So neither persistence nor replication of Redis is needed; with them, debts beyond a
whole bucket outlive a restart too. Set `maxmemory-policy noeviction`: a key that Redis evicts is a debt
forgotten. All keys share one hash slot of a Redis Cluster.
"""

from __future__ import annotations

import math
import os
from importlib.resources import files
from typing import Any, Final

from gateway.ledger.ledger import Batch, Grant

SCRIPT: Final = files("gateway.ledger").joinpath("lease.lua").read_text("utf-8")
PREFIX: Final = b"{fsb}"
CONNECT_S: Final = 1.0
PASSWORD_VARIABLE: Final = "GATEWAY_LEDGER_PASSWORD"  # noqa: S105 (the name of an environment variable)


class RedisLedger:
    """Buckets at a URL: redis://, rediss:// (TLS) or unix://, with user and number if need be."""

    def __init__(self, url: str) -> None:
        """Connects at the first batch, with the password in the environment if there is one.

        Raises:  ValueError for what is no URL, and ImportError.
        """
        from redis.asyncio import Redis  # an extra, as pyarrow is

        password = os.environ.get(PASSWORD_VARIABLE)
        self._redis = Redis.from_url(url, socket_connect_timeout=CONNECT_S, protocol=2, password=password)
        self._script: Any = self._redis.register_script(SCRIPT)

    async def lease(self, batch: Batch) -> list[Grant]:
        """As `Ledger`. Raises redis.RedisError, OSError, and ValueError for wants that are no numbers."""
        keys, numbers = [PREFIX + b"clock", PREFIX + b"r" + batch.replica], [str(batch.number)]
        for key, *values in batch.wants:
            if not (all(map(math.isfinite, values)) and values[0] >= 0 < min(values[2:])):
                raise ValueError(f"ledger: {values} are no units, owed, period and tolerance")
            keys.append(PREFIX + key)
            numbers += map(repr, values)
        reply = list(map(float, await self._script(keys=keys, args=numbers)))
        return [Grant(*pair) for pair in zip(reply[::2], reply[1::2], strict=True)]

    async def close(self) -> None:
        await self._redis.aclose()
