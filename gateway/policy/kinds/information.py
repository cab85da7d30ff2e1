"""What charges the rows of `kind: budget`: at admission by their caller's tier, in the end by the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.core.decision import Degraded, Outcome, Reason, Refused, Served
from guards.gcra import Limit
from guards.price import End, Prices, uncertainty
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


@dataclass(slots=True, eq=False)
class InformationBudget:
    """Implements `SettledBudget` of gateway/core over a priced budget; counts what each principal spends."""

    budget: PricedBudget
    prices: Prices
    spending: Spending

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
            yield Bucket(one.principal, one.principal, self.budget.limit, one.units, one.refused)

    def settle_rows(self, principal: str, ends: Sequence[Outcome | None], repeats: int) -> None:
        """Charges what the answers told beyond their tier, and refusals of guards; repeated rows are free."""
        at_admission = self.budget.prices_of(principal)
        charged = at_admission * (len(ends) + repeats)
        price = self.price_of(at_admission, ends)  # nothing for repeats: End.REPEATED
        self.budget.settle(principal, charged, price)
        if price != charged:
            self.spending.add(principal, price - charged)

    def price_of(self, at_admission: float, ends: Sequence[Outcome | None]) -> float:
        """What rows cost in the end, all together.

        Only a refusal as `abstained` is an answer of a guard or a check: what was too late, over another
        budget, or met a broken part keeps its price, as do rows that wait for a reviewer.
        Cost:    8 us, and 0.5 us a row.
        """
        answers: list[NDArray[Any]] = []
        refused = 0
        for end in ends:
            if isinstance(end, Served | Degraded):
                if (p := end.output.get(OUTPUT)) is not None:
                    answers.append(p)
            elif isinstance(end, Refused) and end.reason is Reason.ABSTAINED:
                refused += 1
        price = at_admission * (len(ends) - len(answers) - refused)
        if answers:
            mean = _mean_uncertainty(answers)  # the price is linear in it
            price += len(answers) * self.prices.in_the_end(at_admission, mean, 0.0, End.ANSWERED)
        if refused:
            price += refused * self.prices.in_the_end(at_admission, 0.0, 0.0, End.REFUSED)
        return price


def _mean_uncertainty(answers: Sequence[NDArray[Any]]) -> float:
    """Over probabilities of one row each, float[1, ..., k]."""
    p = answers[0] if len(answers) == 1 else np.concatenate(answers)
    return float(uncertainty(p.reshape(-1, p.shape[-1])).mean())
