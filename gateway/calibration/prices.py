"""Fits the prices of budgets that are stated in rows, on rows as the pipeline ends them."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.calibration.certify import Certified
from gateway.calibration.folds import SEED, Progress
from gateway.calibration.served import decide_rows
from gateway.calibration.thieves import thieves_rows
from gateway.core.decision import Decision
from gateway.deployment.artifacts import Artifacts
from gateway.policy.kinds.budget import BudgetPolicy
from gateway.policy.kinds.information import told
from gateway.policy.kinds.ood import novelty_guards
from gateway.policy.schema import Policy
from guards.fitted_prices import FittedPrices
from guards.price_fit import HonestRows, PricedRows, fit


def fit_prices(
    policy: Policy, artifacts: Artifacts, found: Certified, progress: Progress
) -> dict[str, FittedPrices]:
    """The prices of every budget that says what honest callers do, by the name of the guard.

    The weights are chosen on the fold `tail`, of which the thieves' rows are made too; the allowance is
    certified on the folds `cut` and `risk`.
    Cost:    of each budget as `fit`; once the serving of some 5,000 rows.
    """
    budgets = (one for one in policy.guards if isinstance(one, BudgetPolicy))
    stated = {one.name: one.honest for one in budgets if one.honest is not None}
    if not stated:
        return {}
    progress("fitting prices")
    review = policy.review is not None
    pilot = found.judged["tail"].rows
    fresh = found.judged["cut"].beside(found.judged["risk"]).rows
    thieves = thieves_rows(pilot, SEED)
    parts = (pilot.x, fresh.x, *thieves.values())
    guards = novelty_guards(policy.guards)
    first, second, *others = (_priced(one, guards) for one in decide_rows(policy, artifacts, parts))
    seen = HonestRows(first, pilot.y), HonestRows(second, fresh.y)
    costs = dict(zip(thieves, others, strict=True))
    return {
        name: fit(*seen, costs, honest.use(review=review), policy.delta, SEED)
        for name, honest in stated.items()
    }


def _priced(decisions: Sequence[Decision], guards: Sequence[str]) -> PricedRows:
    """How the rows ended, each read as a budget reads it."""
    return PricedRows.of([told([one], guards) for one in decisions])
