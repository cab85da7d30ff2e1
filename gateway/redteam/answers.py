"""What one query gives to the attacker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.rows import F8

SERVED, DEGRADED, DEFERRED, REFUSED = OUTCOMES = ("served", "degraded", "deferred", "refused")
ALARMING = ("abstained", "rate_limited")
"""Reasons that are a judgement of the row or a budget of the caller, as opposed to a failure."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """How one row ended. label, p: the class and float64[k] as disclosed; None where no model answered.

    retry_after_s: how long the reply asks to wait; 0 if it does not.
    """

    outcome: str
    reason: str
    label: int | None = None
    p: F8 | None = None
    retry_after_s: float = 0.0

    @property
    def alarming(self) -> bool:
        """Not served, for a reason of budgets or of abstention."""
        return self.outcome != SERVED and self.reason in ALARMING


class Model(Protocol):
    """What is attacked."""

    def ask(self, rows: F8, /) -> Sequence[Answer]:
        """One answer a row of float64[n, d], in scaled units, n at most `rows_a_request`.

        Raises:  Problems where there is no such answer and the operator has to mend something.
        """
        ...

    @property
    def rows_a_request(self) -> int:
        """The most rows that are asked at once."""
        ...
