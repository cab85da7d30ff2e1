"""What was fitted for a budget that is stated in rows, in sentences: for the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.deployment.promises import percent
from guards.fitted_prices import FittedPrices
from guards.honest_callers import WINDOW, simulated_burst
from guards.selective import clopper_pearson_upper


@dataclass(frozen=True, slots=True)
class TheftLine:
    """One kind of thief. answered: the share of its rows; cost: of an answered row, times that of an honest
    caller; answers: that it gets at once from a budget."""

    kind: str
    answered: float
    cost: float
    answers: float


@dataclass(frozen=True, slots=True)
class PricesTold:
    """One budget: what is promised, what it covers, what a row costs, and what thieves pay."""

    name: str
    promise: str
    covers: str
    costs: str
    thefts: tuple[TheftLine, ...]

    def lines(self) -> Iterator[str]:
        """For the terminal."""
        yield f"{self.name}: {self.promise} {self.covers}"
        yield f"{self.name}: {self.costs}"
        for one in self.thefts:
            answered, cost = f"{one.answered:.0%} of its rows are answered", f"{one.cost:.1f}"
            yield f"{self.name}: thief {one.kind}: {answered}; such a row costs {cost} times an honest one;"
            yield f"  it gets {one.answers:,.0f} answers at once"


def prices_told(name: str, fitted: FittedPrices) -> PricesTold:
    """What is to be said of the budget of one guard."""
    use = fitted.use
    bound = clopper_pearson_upper(fitted.over, fitted.callers, fitted.delta)
    promise = (
        f"At most {percent(use.throttled)} of honest callers are ever over their budget, which send up to "
        f"{use.rows:,} rows at once and {use.per_s:g} a second, with {percent(1 - fitted.delta)} confidence: "
        f"{fitted.over} of {fitted.callers:,} simulated ones are, and the exact bound is {bound:.3%}."
    )
    burst = simulated_burst(use.rows)
    covers = (
        "These are drawn from calibration rows that fitted nothing: each has its own mixture of classes, "
        f"and of the rows in a class, and sends {WINDOW} times {burst:,} rows. "
        "Of other callers it holds as far as these rows stand for theirs."
    )
    costs = (
        f"In plain prices (base and tier), an answered row costs 1 + {fitted.uncertainty:g} uncertainty + "
        f"{fitted.novelty:g} novelty, one that is refused {fitted.refusal_factor:g} times as much; an honest "
        f"answer costs {fitted.honest:.2f}, and the budget has room for {fitted.allowance:.2f} a row."
    )
    thefts = tuple(
        TheftLine(one.kind, one.answered, one.cost / fitted.honest, use.rows * fitted.allowance / one.cost)
        for one in fitted.thieves
    )
    return PricesTold(name, promise, covers, costs, thefts)
