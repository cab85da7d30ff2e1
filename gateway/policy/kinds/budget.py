"""`kind: budget`: how many bits about the model each caller may learn (`guards/priced.py`).

Stated in one of two forms: `budget`, bits with the prices of the policy; or `honest`, what honest callers do
in rows, to which calibration fits prices and bits (`guards/price_fit.py`). What was fitted is kept in
`guards.npz` with the `honest` that it was fitted to, and a start refuses another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final, Literal

from fallbacks.predictor import ModelTensor
from gateway.core.budget import Budget
from gateway.core.decision import Reason
from gateway.policy.fields import AnyVerdict, Name, Seconds, Strict
from gateway.policy.kinds.amounts import AmountPolicy, BitsPolicy, HonestPolicy, PricesPolicy, RowsPolicy
from gateway.policy.kinds.budget_limits import limits_in_bits, limits_in_rows
from gateway.policy.kinds.information import InformationBudget
from gateway.policy.kinds.kind import FieldProblem, LedgerUse, Services
from gateway.policy.ledger_place import LOCAL, LedgerPlace, secret_in
from gateway.policy.observation import ObservePolicy
from guards import arrays
from guards.arrays import Arrays
from guards.fitted_prices import FittedPrices, HonestUse
from guards.price import Prices
from guards.priced import PricedBudget

PENALTY_S: Final = 10.0
"""Asking while refused lengthens a wait by so many seconds at most."""
PENALTY_OF_BURST: Final = 0.1


class BudgetPolicy(Strict):
    """How many bits about the model may each caller learn, and all untrusted callers together?"""

    certified: ClassVar[Literal[False]] = False
    reason: ClassVar[Reason] = Reason.RATE_LIMITED
    on_canary: ClassVar[bool] = False  # it would charge a budget
    unbound: ClassVar[frozenset[str]] = frozenset(
        {
            "name",
            "kind",
            "budget",
            "honest",
            "model_budget",
            "prices",
            "ledger",
            "budget_s",
            "on_error",
            "enforce",
            "observe",
        }
    )  # all fields: the certificate does not cover budgets; `load` compares `honest`
    example: ClassVar[str] = (
        "{name: extraction, kind: budget, budget: {per_s: 10, burst: 100000}, budget_s: 0.002,"
        " on_error: refuse}"
    )

    name: Name
    """The stage's name in metrics and audit log, and that of its accounts at the ledger. Unique among guards,
    rungs and checks."""
    kind: Literal["budget"]
    """Selects this guard."""
    budget: BitsPolicy | None = None
    """What each caller may learn, in bits, at `prices`. Either this or `honest`."""
    honest: HonestPolicy | None = None
    """What honest callers do: calibration fits prices and bits so that hardly any is over its budget."""
    model_budget: AmountPolicy | None = None
    """What all callers may learn together whose key is not of the tier `trusted`, those without a key among
    them: the only limit that more keys do not widen. Without it there is none. In bits (`burst`) beside
    `budget`, in rows (`rows`) beside `honest`."""
    prices: PricesPolicy = PricesPolicy()
    """What a row costs. Not beside `honest`, to which prices are fitted."""
    ledger: LedgerPlace = LOCAL
    """Where the budgets are kept over restarts, and shared by replicas: `local` (a file in the folder for
    state, for one replica), `ray` (an actor of the cluster) or the URL of a Redis."""
    budget_s: Seconds
    """Seconds that the guard may take for one request. It waits for nothing, so it never takes that long."""
    on_error: AnyVerdict
    """What a row gets when the guard raises or returns no number, and while the ledger does not answer and
    what was leased is spent: `allow` goes on with this replica's part of the rate, `refuse` fails closed.
    Required, never inferred."""
    enforce: bool = True
    """Whether it refuses. `false`: what it would refuse is only recorded."""
    observe: ObservePolicy | None = None
    """Until when what it would refuse is only recorded: `{until: 2027-01-31}`. From then on it refuses."""

    @property
    def refuse_from(self) -> float:
        return 1.0

    @property
    def retry_scale_s(self) -> float:
        if self.honest is not None:
            return self.honest.rows / self.honest.per_s
        return self._bits.limit.tolerance_s

    @property
    def _bits(self) -> BitsPolicy:
        assert self.budget is not None, "`contradictions` says that it is missing"
        return self.budget

    def contradictions(self) -> Iterable[FieldProblem]:
        if what := secret_in(self.ledger):
            yield ("ledger",), what
        if self.honest is None:
            yield from self._in_bits()
        else:
            yield from self._in_rows(self.honest)

    def _in_bits(self) -> Iterable[FieldProblem]:
        if self.budget is None:
            yield (
                (),
                "needs `budget`, the bits of each caller, or `honest`, the rows that honest callers send",
            )
        if isinstance(self.model_budget, RowsPolicy):
            what = "is in rows, whose price is fitted to `honest`: say it in bits (`burst`), beside `budget`"
            yield ("model_budget",), what

    def _in_rows(self, honest: HonestPolicy) -> Iterable[FieldProblem]:
        fitted = "fitted to `honest`, which says what honest callers do: leave one of the two out"
        if self.budget is not None:
            yield ("budget",), f"is {fitted}"
        if "prices" in self.model_fields_set:
            yield ("prices",), f"are {fitted}"
        match self.model_budget:
            case BitsPolicy():
                yield ("model_budget",), "is in bits, which are fitted to `honest`: say it in `rows`"
            case RowsPolicy(rows=rows, per_s=per_s):
                several = (("rows", rows, honest.rows), ("per_s", per_s, honest.per_s))
                for field, together, each in several:
                    if together < each:
                        what = f"is {together:g} for all callers, and `honest` allows each {each:g}"
                        yield ("model_budget", field), what

    def unreadable(
        self, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
    ) -> Iterable[FieldProblem]:
        return ()

    def promise(self) -> str:
        model = self.model_budget
        if (use := self.honest) is not None:
            text = f"At most {use.throttled:g} of honest callers are ever over their budget, which send up to"
            text += f" {use.rows} rows at once and {use.per_s:g} a second"
            if isinstance(model, RowsPolicy):
                text += f"; all untrusted callers together get {model.rows} rows and {model.per_s:g} a second"
            return f"{text}."
        each = f"{self._bits.burst:g} bits and {self._bits.per_s:g} a second for each caller"
        if not isinstance(model, BitsPolicy):
            return f"At most {each}, over all replicas."
        together = f"{model.burst:g} bits and {model.per_s:g} a second for all untrusted callers together"
        return f"At most {each}, and {together}, over all replicas."

    def reviewer_sentence(self, form: str) -> str:
        return f"“{self.name}” objected"

    def load(self, packed: Arrays, *, review: bool) -> FittedPrices:
        """What calibration fitted to `honest`. Raises ValueError if it fitted nothing, or to another.

        Args:    review: whether the policy has a queue.
        """
        assert self.honest is not None
        if f"{self.name}#" not in packed:
            what = f"guards.{self.name}: no prices are fitted to its `honest`"
            raise ValueError(f"{what}: run `gateway calibrate`, or say `budget` in bits")
        fitted = arrays.unpack(FittedPrices, self.name, packed)
        use = self.honest.use(review=review)
        if fitted.use != use:
            what = f"`honest` is {_said(use)}, and prices were fitted to {_said(fitted.use)}"
            raise ValueError(f"guards.{self.name}: {what}: run `gateway calibrate`")
        return fitted

    def meter(self, services: Services) -> Budget:
        shared, tier_bits = services.shared(LedgerUse.of(self, self.ledger)), services.tier_bits
        if self.honest is None:
            prices, limits = self._said_prices(), limits_in_bits(self._bits, self.model_budget)
        else:
            fitted = services.fitted[self.name]
            prices, limits = fitted.prices, limits_in_rows(fitted, self.model_budget, services)
        budget = PricedBudget(
            shared.accounts,
            limits.each,
            lambda principal: prices.at_admission(tier_bits(principal)),
            services.clock,
            limits.of,
            model_limit=limits.model,
            trusted=services.is_trusted,
            refusal_factor=prices.refusal_factor,
            most_penalty=min(PENALTY_OF_BURST * limits.each.burst, PENALTY_S * limits.each.per_s),
        )
        guards = services.novelty_guards if prices.novelty_bits else ()
        return InformationBudget(budget, prices, shared.spending, guards)

    def _said_prices(self) -> Prices:
        said = self.prices
        return Prices(said.base, said.uncertainty, said.novelty, said.refusal_factor)


def _said(use: HonestUse) -> str:
    queue = "with" if use.review else "without"
    return f"{{rows: {use.rows}, per_s: {use.per_s:g}, throttled: {use.throttled:g}}} {queue} `review`"
