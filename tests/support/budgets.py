"""Deployments with a budget of bits, and callers that use it up."""

from __future__ import annotations

import asyncio
from pathlib import Path

from redis import Redis

from gateway.core.decision import Decision, Reason, Refused
from gateway.deployment.deployment import VAR
from gateway.ledger.journal import Journal, MachineClock
from gateway.ledger.ledger import Batch
from gateway.ledger.open_ledger import FILE
from gateway.ledger.redis_ledger import PREFIX, RedisLedger
from gateway.policy.kinds.information import InformationBudget
from gateway.serving.gateway import Gateway
from tests.support.deployments import FULL_RATE, batch_of, clean_rows, letters
from tests.support.redis_server import RedisServer

PRICE = 8
"""Bits of a row at admission, where the tier shows a label of 26 classes, with `prices.base` as below."""
LONG_AGO_S = 1e9
ROWS = 100
"""Rows of these in a full bucket."""
LONG_S = 2.0
FIELDS = (
    "budget: {per_s: 0.001, burst: 800}, prices: {base: 3.299560281858908, uncertainty: 0, refusal_factor: 1}"
)
LABELS = ("{anonymous: {rounded: 2}, trusted: full}", "{anonymous: label, trusted: label}")


def entry(fields: str = FIELDS, ledger: str = "local", on_error: str = "refuse") -> str:
    """The guard in a policy."""
    return (
        f'  - {{name: extraction, kind: budget, {fields}, ledger: "{ledger}",'
        f" budget_s: 0.002, on_error: {on_error}}}\n"
    )


def budgeted(to: Path, *changes: tuple[str, str], history: bool = False, **other: str) -> Path:
    """configs/letters with a budget of 100 rows, in a folder of its own. history: as of `letters`."""
    guard = ("  - name: ood\n", f"{entry(**other)}  - name: ood\n")
    folder = letters(to, FULL_RATE, guard, LABELS, *changes, history=history)
    fill(folder / VAR)
    return folder


def fill(state: Path) -> None:
    """Makes a ledger in a folder for state that began long ago, so that every bucket is full."""
    clock = MachineClock.of_this_machine()
    Journal(state / FILE, clock._replace(running=lambda: -LONG_AGO_S)).close()


async def fill_redis(server: RedisServer) -> None:
    """The same in a Redis."""
    ledger = RedisLedger(server.url)
    await ledger.lease(Batch(b"filled long ago.", 1, ()))
    await ledger.close()
    with Redis.from_url(server.url) as redis:
        redis.hset((PREFIX + b"clock").decode(), "now", str(LONG_AGO_S))


def budget_of(gateway: Gateway) -> InformationBudget:
    (budget,) = (one.budget for one in gateway.loaded.pipeline.budgets if one.name == "extraction")
    assert isinstance(budget, InformationBudget)
    return budget


async def decided(gateway: Gateway, rows: int, who: str = "ada") -> list[Decision]:
    return await gateway.decide(batch_of(clean_rows(rows), who))


def over(decision: Decision) -> bool:
    """Whether a budget or a rate refused it."""
    return isinstance(decision.outcome, Refused) and decision.outcome.reason is Reason.RATE_LIMITED


async def passed(gateway: Gateway, who: str = "ada", until_s: float = LONG_S) -> int:
    """How many rows pass until the wait is longer than `until_s`: the bucket is empty, not to be leased."""
    passed = 0
    for _ in range(400):
        decisions = await decided(gateway, 5, who)
        refused = [one.outcome for one in decisions if over(one)]
        passed += len(decisions) - len(refused)
        if any(isinstance(one, Refused) and (one.retry_after_s or 0) > until_s for one in refused):
            return passed
        if refused:
            await asyncio.sleep(0.02)
    raise AssertionError(f"{passed} rows have passed, and no end")
