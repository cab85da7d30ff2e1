"""`kind: rate`: a limit of rows a second for each caller and each replica (`guards/rate.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fallbacks.predictor import ModelTensor
from gateway.core.budget import Budget
from gateway.core.decision import Reason
from gateway.policy.fields import AnyVerdict, Name, Seconds, Strict
from gateway.policy.kinds.kind import FieldProblem, Services
from gateway.policy.observation import ObservePolicy
from guards.rate import RateGuard


class RatePolicy(Strict):
    """At most `per_s` rows a second and `burst` at once, for each caller and each replica."""

    certified: ClassVar[Literal[False]] = False
    reason: ClassVar[Reason] = Reason.RATE_LIMITED
    on_canary: ClassVar[bool] = False  # it would charge a limit
    unbound: ClassVar[frozenset[str]] = frozenset(
        {"name", "kind", "per_s", "burst", "cuts", "budget_s", "on_error", "enforce", "observe"}
    )  # all fields: the certificate does not cover rates
    example: ClassVar[str] = (
        "{name: rate, kind: rate, per_s: 200, burst: 400, budget_s: 0.002, on_error: allow}"
    )

    name: Name
    """The stage's name in metrics and audit log. Unique among guards, rungs and checks."""
    kind: Literal["rate"]
    """Selects this guard."""
    per_s: Annotated[float, Field(gt=0)]
    """Rows a second of one caller, at each replica. A key's own `--per-s` takes its place."""
    burst: Annotated[float, Field(ge=1)]
    """Rows that one caller may send at once after a pause. It scales with a key's own rate, and is never less
    than one row."""
    cuts: Annotated[dict[Literal["refuse"], Annotated[float, Field(ge=1, le=1)]], Field(min_length=1)] = {
        "refuse": 1.0
    }
    """The score from which a row is refused: 1 is the limit. Nothing else is accepted, so leave it out."""
    budget_s: Seconds
    """Seconds that the guard may take for one request. It waits for nothing, so it never takes that long."""
    on_error: AnyVerdict
    """What a row gets when the guard raises or returns no number: `allow` fails open,
    `refuse` fails closed. Required, never inferred."""
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
        return ()

    def unreadable(
        self, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
    ) -> Iterable[FieldProblem]:
        return ()

    def promise(self) -> str:
        limits = f"{self.per_s:g} rows a second and {self.burst:g} at once"
        return f"At most {limits}, for each caller and replica."

    def reviewer_sentence(self, form: str) -> str:
        return f"“{self.name}” objected"

    def budget(self, services: Services) -> Budget:
        return RateGuard(self.per_s, self.burst, services.clock, services.rate_of)
