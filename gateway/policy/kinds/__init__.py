"""The kinds of guards and checks that a policy may name: one file a kind, one line in a union.

May import the core, guards and fallbacks' types. Read `kind.py` first: the protocols of a kind. To
add one, follow docs/adding-a-guard.md.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from gateway.policy.kinds.budget import BudgetPolicy
from gateway.policy.kinds.confidence import ConfidencePolicy
from gateway.policy.kinds.interval import IntervalPolicy
from gateway.policy.kinds.kind import BudgetKind, CertifiedGuardKind, CheckKind, HistoryKind
from gateway.policy.kinds.ood import OodPolicy
from gateway.policy.kinds.queries import QueriesPolicy
from gateway.policy.kinds.rate import RatePolicy
from gateway.policy.kinds.squeeze import SqueezePolicy

_Guards: TypeAlias = (
    RatePolicy
    | BudgetPolicy
    | OodPolicy
    | SqueezePolicy
    | QueriesPolicy
)  # fmt: skip
AnyBudget: TypeAlias = RatePolicy | BudgetPolicy
"""Every kind that charges rows before they are judged."""
GuardPolicy: TypeAlias = Annotated[_Guards, Field(discriminator="kind")]
"""Every kind of guard."""

CheckPolicy: TypeAlias = Annotated[ConfidencePolicy | IntervalPolicy, Field(discriminator="kind")]
"""Every kind of check."""


def complete_guard(kind: GuardPolicy) -> BudgetKind | CertifiedGuardKind | HistoryKind:
    """The kind as the protocol that it implements. The type checker refuses a kind that lacks a member."""
    return kind


def complete_check(kind: CheckPolicy) -> CheckKind:
    """The same for a check."""
    return kind
