"""Everything that calibration fitted, and `guards.npz`, which holds it with the rows that it kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.interval_model import interval_check
from gateway.deployment.kept_rows import KeptRows
from gateway.policy.kinds.budget import BudgetPolicy
from gateway.policy.kinds.interval import FittedInterval
from gateway.policy.kinds.kind import FittedGuard
from gateway.policy.kinds.ood import OodPolicy
from gateway.policy.kinds.queries import FittedQueries, QueriesPolicy
from gateway.policy.kinds.squeeze import SqueezePolicy
from gateway.policy.schema import Policy
from guards import arrays
from guards.arrays import Arrays
from guards.fitted_prices import FittedPrices
from guards.row_view import RowView

_VIEW = "view"


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """view: how guards read the inputs; guards: those with a certified cut, by name; intervals: by rung;
    histories: of guards that judge by earlier rows, by name; prices: of budgets that are stated in rows, by
    name.
    """

    view: RowView
    guards: Mapping[str, FittedGuard]
    intervals: Mapping[str, FittedInterval]
    histories: Mapping[str, FittedQueries] = field(default_factory=dict)
    prices: Mapping[str, FittedPrices] = field(default_factory=dict)


def guarded_inputs(policy: Policy, view: RowView) -> set[str]:
    """The inputs that a guard or an interval of this policy reads; their rows have one size each."""
    kinds = [guard for guard in policy.guards if guard.certified]
    detectors = {name for guard in kinds if isinstance(guard, OodPolicy) for name in guard.detectors}
    pictures = bool({"raw", "noise"} & detectors) or any(not isinstance(guard, OodPolicy) for guard in kinds)
    table = "raw" in detectors or any(interval_check(rung) for rung in policy.rungs)
    table = table or any(not isinstance(guard, (OodPolicy, SqueezePolicy)) for guard in kinds)
    return {*(view.pictures if pictures else ()), *(view.table_inputs if table else ())}


def inputs_of_one_size(policy: Policy, view: RowView) -> set[str]:
    """The inputs whose rows have one size each: those that are guarded, and those whose history is read."""
    found = guarded_inputs(policy, view)
    if any(isinstance(guard, QueriesPolicy) for guard in policy.guards):
        found |= {*(view.pictures or view.table_inputs)}
    return found


def unguarded(policy: Policy, view: RowView) -> dict[str, str]:
    """The inputs that no guard reads, each with the reason."""
    found = dict(zip(view.unguarded, view.reasons, strict=True))
    read = guarded_inputs(policy, view)
    left = [name for name in (*view.pictures, *view.table_inputs) if name not in read]
    return found | dict.fromkeys(left, "no guard of kind ood has the detector raw")


def save_guards(path: Path, fitted: Fitted, kept: KeptRows) -> None:
    """Writes `guards.npz`. Raises OSError."""
    packed: Arrays = arrays.pack(_VIEW, fitted.view) | kept.pack()
    for guard in fitted.guards.values():
        packed |= guard.pack()
    for history in fitted.histories.values():
        packed |= history.pack()
    for interval in fitted.intervals.values():
        packed |= interval.pack()
    for name, prices in fitted.prices.items():
        packed |= arrays.pack(name, prices)
    arrays.save(path, packed)


def load_guards(policy: Policy, path: Path) -> tuple[Fitted, KeptRows]:
    """Reads what `save_guards` wrote. Raises ArtifactError naming the key that is missing or wrong."""
    try:
        packed = arrays.load(path)
        view = arrays.unpack(RowView, _VIEW, packed)
        guards = {guard.name: guard.load(packed) for guard in policy.guards if guard.certified}
        checks = {rung.name: check for rung in policy.rungs if (check := interval_check(rung)) is not None}
        intervals = {rung: check.load(rung, packed) for rung, check in checks.items()}
        kinds = [guard for guard in policy.guards if isinstance(guard, QueriesPolicy)]
        histories = {kind.name: kind.load(packed) for kind in kinds}
        budgets = [guard for guard in policy.guards if isinstance(guard, BudgetPolicy) and guard.honest]
        prices = {budget.name: budget.load(packed, review=policy.review is not None) for budget in budgets}
        return Fitted(view, guards, intervals, histories, prices), KeptRows.unpack(packed)
    except ValueError as error:
        raise ArtifactError([Problem("", str(error), str(path))]) from error
