"""A rung's `circuit` block: when too many of a model's recent calls have failed or were slow."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.policy.fields import Strict


class CircuitPolicy(Strict):
    """The recent calls of one rung that are judged together, beside failures in a row."""

    calls: Annotated[int, Field(ge=1, le=10_000)] = 100
    """The most calls that are judged together, the latest."""
    window_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Seconds after which a call counts no more."""
    least_calls: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Fewer calls than these are not judged. At most `calls`."""
    failed_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The share of these calls, from which on the circuit opens, that failed: raised, or ran out of time."""
    late_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The share of these calls, from which on the circuit opens, that failed or were slow."""
    slow_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The share of `budget_s` beyond which an answer is slow, its wait behind other calls not counted. At 1
    none is."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.least_calls > self.calls:
            raise ValueError(f"least_calls {self.least_calls} is above calls {self.calls}: never judged")
        return self
