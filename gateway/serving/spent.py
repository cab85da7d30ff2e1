"""What callers have spent of the budgets of bits at this replica, and what they have left at the ledger."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.ledger.leased import LeasedAccounts
from gateway.ledger.ledger import Want
from gateway.policy.kinds.information import InformationBudget
from gateway.serving.gateway import Gateway

MOST_LISTED: Final = 100


def budgets_of(gateway: Gateway) -> Iterator[tuple[str, InformationBudget]]:
    """The budgets of bits of the policy in force, by the name of their guard."""
    for stage in gateway.loaded.pipeline.budgets:
        if isinstance(stage.budget, InformationBudget):
            yield stage.name, stage.budget


async def spent_here(gateway: Gateway) -> dict[str, list[dict[str, Any]]]:
    """By guard, one entry a bucket: of the 100 principals that spent most, and of all untrusted ones.

    principal: of a caller, or `EVERY_UNTRUSTED`; spent: bits since the start of the replica, None for the
    latter; refused: rows over the budget; burst: bits of a full bucket; held: bits that this replica has
    leased and not spent; at_ledger: bits that the ledger has, None while it does not answer.
    """
    return {name: await _buckets(gateway, name, budget) for name, budget in budgets_of(gateway)}


async def _buckets(gateway: Gateway, name: str, budget: InformationBudget) -> list[dict[str, Any]]:
    accounts, now_s = budget.budget.accounts, time.monotonic()
    assert isinstance(accounts, LeasedAccounts)
    found: list[dict[str, Any]] = []
    wants: dict[str, Want] = {}
    for bucket in budget.buckets(MOST_LISTED):
        wants[bucket.principal] = accounts.glance(bucket.name, bucket.limit)
        found.append(
            {
                "principal": bucket.principal,
                "spent": bucket.spent,
                "refused": bucket.refused,
                "burst": bucket.limit.burst,
                "held": accounts.held(bucket.name, now_s),
            }
        )
    left = await gateway.budgets.left_at_ledger(name, wants)
    return [one | {"at_ledger": left.get(one["principal"])} for one in found]


def merged(found: Iterable[Iterable[Mapping[str, Any]]], most: int) -> list[dict[str, Any]]:
    """The buckets of several replicas as one: what all untrusted callers share first, then by what was spent.

    left: what the ledger has and what replicas hold of it, at most a full bucket; None where it is not known.
    """
    sums: dict[str, dict[str, Any]] = {}
    for bucket in (bucket for replica in found for bucket in replica):
        first = {"spent": None, "refused": 0, "burst": bucket["burst"], "held": 0.0, "at_ledger": None}
        one = sums.setdefault(bucket["principal"], {"principal": bucket["principal"], **first})
        one["refused"] += bucket["refused"]
        one["held"] += bucket["held"]
        if bucket["spent"] is not None:
            one["spent"] = (one["spent"] or 0.0) + bucket["spent"]
        if bucket["at_ledger"] is not None:
            one["at_ledger"] = bucket["at_ledger"]
    listed = sorted(sums.values(), key=lambda one: (-_spent(one), -one["refused"]))
    return [_with_left(one) for one in listed[: most + any(one["spent"] is None for one in listed)]]


def _spent(bucket: Mapping[str, Any]) -> float:
    return math.inf if bucket["spent"] is None else float(bucket["spent"])


def _with_left(bucket: dict[str, Any]) -> dict[str, Any]:
    held, at_ledger = bucket.pop("held"), bucket.pop("at_ledger")
    return bucket | {"left": None if at_ledger is None else min(at_ledger + held, bucket["burst"])}
