"""`kind: budget`: how many bits about the model each caller may learn (`guards/priced.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from fallbacks.predictor import ModelTensor
from gateway.core.budget import Budget
from gateway.core.decision import Reason
from gateway.policy.fields import AnyVerdict, Name, Seconds, Strict
from gateway.policy.kinds.information import InformationBudget
from gateway.policy.kinds.kind import FieldProblem, LedgerUse, Services
from gateway.policy.ledger_place import LOCAL, LedgerPlace, secret_in
from gateway.policy.observation import ObservePolicy
from guards.gcra import Limit
from guards.price import Prices
from guards.priced import PricedBudget

PENALTY_S: Final = 10.0
"""Asking while refused lengthens a wait by so many seconds at most."""
PENALTY_OF_BURST: Final = 0.1


class BitsPolicy(Strict):
    """How many bits may be learnt."""

    per_s: Annotated[float, Field(gt=0)]
    """Bits a second, in the long run."""
    burst: Annotated[float, Field(ge=1)]
    """Bits at once after a pause. A row that costs more passes where all of it is there."""

    @property
    def limit(self) -> Limit:
        return Limit(self.per_s, self.burst)


class PricesPolicy(Strict):
    """What a row costs beside the bits that its caller's tier shows. The defaults are not fitted."""

    base: Annotated[float, Field(ge=0)] = 1.0
    """Bits that every row costs."""
    uncertainty: Annotated[float, Field(ge=0)] = 4.0
    """Bits that a row costs in addition whose two likeliest classes are equally likely, and less for others:
    a row near a boundary tells more about the model. Known, and charged, once it is answered."""
    refusal_factor: Annotated[float, Field(ge=1)] = 5.0
    """How many times its price a row costs that a guard or check refuses; and one over the budget, until the
    next row passes up to ten seconds of the rate, or a tenth of `burst` if that is less."""


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
            "model_budget",
            "prices",
            "ledger",
            "budget_s",
            "on_error",
            "enforce",
            "observe",
        }
    )  # all fields: the certificate does not cover budgets
    example: ClassVar[str] = (
        "{name: extraction, kind: budget, budget: {per_s: 10, burst: 100000}, budget_s: 0.002,"
        " on_error: refuse}"
    )

    name: Name
    """The stage's name in metrics and audit log, and that of its accounts at the ledger. Unique among guards,
    rungs and checks."""
    kind: Literal["budget"]
    """Selects this guard."""
    budget: BitsPolicy
    """What each caller may learn."""
    model_budget: BitsPolicy | None = None
    """What all callers may learn together whose key is not of the tier `trusted`, those without a key among
    them: the only limit that more keys do not widen. Without it there is none."""
    prices: PricesPolicy = PricesPolicy()
    """What a row costs."""
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
        return self.budget.limit.tolerance_s

    def contradictions(self) -> Iterable[FieldProblem]:
        if what := secret_in(self.ledger):
            yield ("ledger",), what

    def unreadable(
        self, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
    ) -> Iterable[FieldProblem]:
        return ()

    def promise(self) -> str:
        each = f"{self.budget.burst:g} bits and {self.budget.per_s:g} a second for each caller"
        if (model := self.model_budget) is None:
            return f"At most {each}, over all replicas."
        together = f"{model.burst:g} bits and {model.per_s:g} a second for all untrusted callers together"
        return f"At most {each}, and {together}, over all replicas."

    def reviewer_sentence(self, form: str) -> str:
        return f"“{self.name}” objected"

    def meter(self, services: Services) -> Budget:
        shared, tier_bits = services.shared(LedgerUse.of(self, self.ledger)), services.tier_bits
        prices = Prices(self.prices.base, self.prices.uncertainty, 0.0, self.prices.refusal_factor)
        budget = PricedBudget(
            shared.accounts,
            self.budget.limit,
            lambda principal: prices.at_admission(tier_bits(principal)),
            services.clock,
            model_limit=None if self.model_budget is None else self.model_budget.limit,
            trusted=services.is_trusted,
            refusal_factor=prices.refusal_factor,
            most_penalty=min(PENALTY_OF_BURST * self.budget.burst, PENALTY_S * self.budget.per_s),
        )
        return InformationBudget(budget, prices, shared.spending)
