"""One false-alarm cut over all certified guards together, or one for each slice of the rows.

The joint risk of a row is the largest risk that any certified guard gives it. A guard's `share` moves its
risk by log(share) first, so that it uses at most that part of the budget; the input-only forms count fully.
One cut on that scale, set at each guard, stops exactly the rows whose joint risk reaches it: one budget,
however the guards correlate. Guards that are only observed take part, so that enforcing one later changes no
cut.

`false_alarm_by` gives each slice a cut of its own, at level delta over the number of slices, so that all of
them, and therefore all rows together, keep to the budget with probability 1 - delta. Slices with too few rows
form one slice together. Source: Vovk, ACML 2012, section 4 (Mondrian conformal prediction).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gateway.core.assessment import Verdicts
from gateway.core.decision import Verdict
from gateway.core.rows import F8
from gateway.deployment.certificate import FalseAlarm, SliceCut
from gateway.deployment.certification.paths import LadderRows
from gateway.deployment.certification.scores import FoldScores, SliceNames
from gateway.deployment.slices import slice_shifts
from gateway.policy.kinds.kind import CertifiedGuardKind
from gateway.policy.schema import Policy
from guards.order_statistic import certified_cut, largest_k, samples_needed


class BudgetRefused(Exception):
    """The rows cannot certify the budget. n: how many there are."""

    def __init__(self, n: int) -> None:
        super().__init__(f"{n} rows")
        self.n = n


def certified_guards(policy: Policy) -> list[CertifiedGuardKind]:
    """The guards with a certified cut, in the order of the policy."""
    return [guard for guard in policy.guards if guard.certified]


def shares(policy: Policy) -> dict[str, float]:
    """The share of each certified guard by name."""
    return {guard.name: guard.share for guard in certified_guards(policy)}


def joint_risk(scores: Mapping[str, F8], share_of: Mapping[str, float]) -> F8 | None:
    """float64[n]: the largest risk that any of these guards gives a row; None without any.

    share_of: moves a guard's risk by its logarithm; 1 for guards that it does not name.
    """
    risks = [risk + math.log(share_of.get(name, 1.0)) for name, risk in scores.items()]
    return np.max(risks, axis=0) if risks else None


def certify_alarms(policy: Policy, risks: F8 | None, slices: SliceNames | None) -> FalseAlarm | None:
    """The cut on the joint risk of n rows. slices: the slice of each row, where the policy asks for them.

    Pooled where only one slice has enough rows.
    Raises:  BudgetRefused.
    """
    if risks is None:
        return None
    a, delta = policy.false_alarm_budget, policy.delta
    named = () if slices is None else _large_enough(slices, a, delta)
    if slices is not None and named:
        return _sliced(risks, slices, named, policy)
    if not largest_k(len(risks), a, delta):
        raise BudgetRefused(len(risks))
    cut = certified_cut(risks, a, delta)
    return FalseAlarm(budget=a, delta=delta, n=cut.n, k=cut.k, cut=cut.value, slices=[])


def _large_enough(slices: SliceNames, a: float, delta: float) -> tuple[str, ...]:
    """The values with a cut of their own, the most frequent; as many as leave enough rows to all others.

    Counts alone decide, not the risks.
    """
    values, counts = np.unique(slices, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rest = len(slices) - np.cumsum(counts[order])
    for own in range(len(values) - 1, 0, -1):
        if min(counts[order[own - 1]], rest[own - 1]) >= samples_needed(a, delta / (own + 1)):
            return tuple(str(values[i]) for i in order[:own])
    return ()


def _sliced(risks: F8, slices: SliceNames, named: tuple[str, ...], policy: Policy) -> FalseAlarm:
    """A cut for each named value, and one for every other row, values that were never seen included."""
    a, each = policy.false_alarm_budget, policy.delta / (len(named) + 1)
    found = []
    for value in (*named, None):
        rows = ~np.isin(slices, named) if value is None else slices == value
        cut = certified_cut(risks[rows], a, each)
        values = [] if value is None else [value]
        found.append(SliceCut(values=values, n=cut.n, k=cut.k, cut=cut.value))
    n, k = sum(one.n for one in found), sum(one.k for one in found)
    highest = max(one.cut for one in found)
    return FalseAlarm(budget=a, delta=policy.delta, n=n, k=k, cut=highest, slices=found)


@dataclass(frozen=True, slots=True)
class Alarms:
    """The certified cuts of the guards, and of their input-only forms."""

    full: FalseAlarm | None
    input_only: FalseAlarm | None


def certify_guards(policy: Policy, fold: FoldScores) -> Alarms:
    """Both cuts from the rows of the fold `cut`. Raises BudgetRefused."""
    full, input_only = joint_risk(fold.full, shares(policy)), joint_risk(fold.input_only, {})
    return Alarms(
        certify_alarms(policy, full, fold.slices),
        certify_alarms(policy, input_only, fold.slices_without_answer(policy)),
    )


def shifts_of(alarm: FalseAlarm | None, slices: SliceNames | None) -> F8 | float:
    """How far each row's cut lies below `alarm.cut`: float64[n] <= 0, or 0 without slices."""
    return slice_shifts(alarm, slices) if alarm is not None and alarm.slices and slices is not None else 0.0


def verdicts(
    policy: Policy,
    scores: Mapping[str, F8],
    alarm: FalseAlarm | None,
    slices: SliceNames | None,
    share_of: Mapping[str, float],
) -> Verdicts:
    """int8[n]: the join of the enforced guards' verdicts on rows that have scores."""
    joined = np.zeros(len(next(iter(scores.values()), ())), np.int8)
    if alarm is None:
        return joined
    shifts = shifts_of(alarm, slices)
    for guard in certified_guards(policy):
        if guard.enforce and guard.name in scores:
            stops = scores[guard.name] - shifts >= alarm.cut - math.log(share_of.get(guard.name, 1.0))
            np.maximum(joined, np.where(stops, np.int8(guard.verdict), np.int8(0)), out=joined)
    return joined


def ladder_rows(policy: Policy, fold: FoldScores, alarms: Alarms) -> LadderRows:
    """The rows before the ladder, at certified cuts."""
    n = len(fold)
    full = verdicts(policy, fold.full, alarms.full, fold.slices, shares(policy))
    alone = verdicts(policy, fold.input_only, alarms.input_only, fold.slices_without_answer(policy), {})
    allowed = np.zeros(n, np.int8)
    return LadderRows(full if fold.full else allowed, alone if fold.input_only else allowed, fold.rungs)


def assumed_without_primary(policy: Policy, forms: Iterable[str]) -> Verdict:
    """What every row gets from enforced guards that have no input-only form, while the primary is gone."""
    assumed = [g.without_answer for g in certified_guards(policy) if g.enforce and g.name not in forms]
    return max(assumed, default=Verdict.ALLOW)
