"""`kind: rate`: a limit of rows a second for each caller.

Without a ledger each replica has its own (`guards/rate.py`); with one, all share it (`guards/priced.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fallbacks.predictor import ModelTensor
from gateway.core.budget import Budget
from gateway.core.decision import Reason
from gateway.policy.fields import AnyVerdict, Name, Seconds, Strict
from gateway.policy.kinds.kind import FieldProblem, LedgerUse, Services
from gateway.policy.ledger_place import LedgerPlace, secret_in
from gateway.policy.observation import ObservePolicy
from guards.gcra import Limit
from guards.priced import PricedBudget
from guards.rate import RateGuard


class RatePolicy(Strict):
    """At most `per_s` rows a second and `burst` at once, for each caller: at each replica, or with a `ledger`
    over all of them."""

    certified: ClassVar[Literal[False]] = False
    reason: ClassVar[Reason] = Reason.RATE_LIMITED
    on_canary: ClassVar[bool] = False  # it would charge a limit
    unbound: ClassVar[frozenset[str]] = frozenset(
        {"name", "kind", "per_s", "burst", "cuts", "ledger", "budget_s", "on_error", "enforce", "observe"}
    )  # all fields: the certificate does not cover rates
    example: ClassVar[str] = (
        "{name: rate, kind: rate, per_s: 200, burst: 400, budget_s: 0.002, on_error: allow}"
    )

    name: Name
    """The stage's name in metrics and audit log. Unique among guards, rungs and checks."""
    kind: Literal["rate"]
    """Selects this guard."""
    per_s: Annotated[float, Field(gt=0)]
    """Rows a second of one caller. A key's own `--per-s` takes its place."""
    burst: Annotated[float, Field(ge=1)]
    """Rows that one caller may send at once after a pause. It scales with a key's own rate, and is never less
    than one row."""
    cuts: Annotated[dict[Literal["refuse"], Annotated[float, Field(ge=1, le=1)]], Field(min_length=1)] = {
        "refuse": 1.0
    }
    """The score from which a row is refused: 1 is the limit. Nothing else is accepted, so leave it out."""
    ledger: LedgerPlace | None = None
    """Where replicas share the limit: `local` (a file, for one replica), `ray` (an actor of the cluster) or
    the URL of a Redis. It is kept over restarts there. Without it each replica has a limit of its own."""
    budget_s: Seconds
    """Seconds that the guard may take for one request. It waits for nothing, so it never takes that long."""
    on_error: AnyVerdict
    """What a row gets when the guard raises or returns no number: `allow` fails open,
    `refuse` fails closed. While a ledger does not answer, `allow` is this replica's part of the rate.
    Required, never inferred."""
    enforce: bool = True
    """Whether it refuses. `false`: what it would refuse is only recorded."""
    observe: ObservePolicy | None = None
    """Until when what it would refuse is only recorded: `{until: 2027-01-31}`. From then on it refuses."""

    @property
    def refuse_from(self) -> float:
        return self.cuts["refuse"]

    @property
    def retry_scale_s(self) -> float:
        return self.burst / self.per_s

    def contradictions(self) -> Iterable[FieldProblem]:
        if self.ledger is not None and (what := secret_in(self.ledger)):
            yield ("ledger",), what

    def unreadable(
        self, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
    ) -> Iterable[FieldProblem]:
        return ()

    def promise(self) -> str:
        limits = f"{self.per_s:g} rows a second and {self.burst:g} at once"
        where = "each caller and replica" if self.ledger is None else "each caller, over all replicas"
        return f"At most {limits}, for {where}."

    def reviewer_sentence(self, form: str) -> str:
        return f"“{self.name}” objected"

    def meter(self, services: Services) -> Budget:
        if self.ledger is None:
            return RateGuard(self.per_s, self.burst, services.clock, services.rate_of)
        accounts, limit = services.shared(LedgerUse.of(self, self.ledger)).accounts, self.limit
        limits = _own_limits(limit, services.rate_of)
        return PricedBudget(accounts, limit, lambda principal: 1.0, services.clock, limits)

    @property
    def limit(self) -> Limit:
        return Limit(self.per_s, self.burst)


def _own_limits(default: Limit, rate_of: Callable[[str], float | None]) -> Callable[[str], Limit | None]:
    """A key's own limit: its burst scales with its rate, as `guards/rate.py` has it, but for a rate of 0."""
    known: dict[float, Limit] = {}

    def limit_of(principal: str) -> Limit | None:
        rate = rate_of(principal)
        if rate is None:
            return None
        if rate not in known:
            known[rate] = Limit(rate, max(1.0, default.burst * rate / default.per_s))
        return known[rate]

    return limit_of
