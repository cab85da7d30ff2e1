"""What charges the rows of `kind: budget`: at admission by their caller's tier, in the end by the answer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.core.assessment import largest_scores
from gateway.core.decision import Decision, Deferred, Degraded, Finding, Reason, Refused, Served
from guards.gcra import Limit
from guards.novelty import novelty
from guards.price import Prices, Told, uncertainty
from guards.priced import MODEL, PricedBudget
from guards.spending import Spending

OUTPUT: Final = "probabilities"
EVERY_UNTRUSTED: Final = "(all untrusted together)"
"""What the bucket is called that callers without trust share: no principal has such a name."""


class Bucket(NamedTuple):
    """One bucket of a budget, to be shown. name: in the accounts; spent: None where it is not counted."""

    principal: str
    name: str
    limit: Limit
    spent: float | None
    refused: int


def told(ends: Sequence[Decision | None], novelty_guards: Collection[str]) -> Told:
    """What a price in the end follows from. novelty_guards: whose scores say how new a row is.

    Only a refusal as `abstained` is an answer of a guard or a check. What was too late, over another budget,
    or met a broken part, was told nothing.
    Cost:    8 us, and 0.5 us a row; with novelty 3 us more, and 0.6 us a row.
    """
    answers = list[NDArray[Any]]()
    judged, refused = list[Sequence[Finding]](), list[Sequence[Finding]]()
    answered = 0
    for end in ends:
        match end:
            case Decision(outcome=Served(output=output) | Degraded(output=output), findings=found):
                answered += 1
                judged.append(found)
                if (p := output.get(OUTPUT)) is not None:
                    answers.append(p)
            case Decision(outcome=Deferred(), findings=found):
                judged.append(found)
            case Decision(outcome=Refused(reason=Reason.ABSTAINED), findings=found):
                refused.append(found)
    unsure = _uncertainty(answers) if answers else 0.0
    new = [_novelty(found, novelty_guards) for found in (judged, refused)]
    return Told(len(ends), answered, len(refused), unsure, *new)


@dataclass(slots=True, eq=False)
class InformationBudget:
    """Implements `SettledBudget` of gateway/core over a priced budget; counts what each principal spends.

    novelty_guards: the guards whose scores say how new a row is; none: no row is.
    """

    budget: PricedBudget
    prices: Prices
    spending: Spending
    novelty_guards: Collection[str] = ()

    def charge(self, principal: str, rows: int) -> list[float]:
        """As `PricedBudget.charge`. Cost: 1 us more."""
        scores = self.budget.charge(principal, rows)
        admitted = rows if scores[-1] < 1.0 else sum(score < 1.0 for score in scores)
        if admitted:
            self.spending.add(principal, admitted * self.budget.prices_of(principal))
        if admitted < rows and scores[-1] >= 1.0:  # not where the ledger is gone: NaN
            self.spending.refuse(principal, rows - admitted)
        return scores

    def buckets(self, most: int) -> Iterator[Bucket]:
        """That of all untrusted callers, if there is one, and those of the callers that have spent most."""
        if (model := self.budget.model_limit) is not None:
            yield Bucket(EVERY_UNTRUSTED, MODEL, model, None, 0)
        for one in self.spending.top(most):
            limit = self.budget.limit_of(one.principal)
            yield Bucket(one.principal, one.principal, limit, one.units, one.refused)

    def settle_rows(self, principal: str, ends: Sequence[Decision | None], repeats: int) -> None:
        """Charges what the answers told beyond their tier, and refusals of guards; repeated rows are free."""
        at_admission = self.budget.prices_of(principal)
        charged = at_admission * (len(ends) + repeats)
        price = self.price_of(at_admission, ends)  # nothing for repeats
        self.budget.settle(principal, charged, price)
        if price != charged:
            self.spending.add(principal, price - charged)

    def price_of(self, at_admission: float, ends: Sequence[Decision | None]) -> float:
        """What rows cost in the end, all together. Cost: that of `told`, and 2 us."""
        return self.prices.in_the_end(at_admission, told(ends, self.novelty_guards))


def _novelty(findings: Sequence[Sequence[Finding]], guards: Collection[str]) -> float:
    """The sum over rows."""
    return math.fsum(map(novelty, largest_scores(findings, guards))) if guards else 0.0


def _uncertainty(answers: Sequence[NDArray[Any]]) -> float:
    """The sum over rows; each is float[1, ..., k], of which the mean over the axes between counts."""
    p = answers[0] if len(answers) == 1 else np.concatenate(answers)
    return float(uncertainty(p.reshape(-1, p.shape[-1])).mean()) * len(answers)
