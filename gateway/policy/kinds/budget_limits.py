"""The buckets of `kind: budget`: each caller's, and that of all callers without trust."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.policy.kinds.amounts import BitsPolicy, RowsPolicy
from gateway.policy.kinds.kind import Services
from guards.fitted_prices import FittedPrices
from guards.gcra import Limit


class Limits(NamedTuple):
    """each: of callers of the tier `anonymous`, or of all; of: each caller's own where tiers have their own;
    model: of all callers without trust, None for none."""

    each: Limit
    of: Callable[[str], Limit | None] | None
    model: Limit | None


def limits_in_bits(budget: BitsPolicy, model: BitsPolicy | RowsPolicy | None) -> Limits:
    """Those that the policy says, the same for every tier."""
    return Limits(budget.limit, None, model.limit if isinstance(model, BitsPolicy) else None)


def limits_in_rows(fitted: FittedPrices, model: BitsPolicy | RowsPolicy | None, services: Services) -> Limits:
    """The same rows for every tier, at what they cost there; together, at what the tier `anonymous` pays."""
    use, anonymous = fitted.use, services.anonymous_bits

    def of(principal: str) -> Limit:
        return fitted.limit(use.rows, use.per_s, services.tier_bits(principal))

    together = None
    if isinstance(model, RowsPolicy):
        together = fitted.limit(model.rows, model.per_s, anonymous)
    return Limits(fitted.limit(use.rows, use.per_s, anonymous), of, together)
