"""What a policy or its calibration rows leave without a promise, one sentence each."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gateway.calibration.alarms import assumed_without_primary, certified_guards
from gateway.calibration.slices import ClassSlices
from gateway.core.decision import Verdict
from gateway.deployment.certificate import Certificate
from gateway.policy.schema import Policy


def not_promised(policy: Policy, certificate: Certificate, forms: Collection[str]) -> Iterator[str]:
    """The sentences. forms: the guards that have an input-only form."""
    yield from _of_guards(policy, certificate, forms)
    for depth, rung in enumerate(policy.rungs):
        if rung.name in certificate.selective:
            if depth:
                yield (
                    f"Of the rows that {rung.name} answers while an earlier rung works, nothing by itself: "
                    "these are the hard ones, and count in everything answered."
                )
        elif not any(check.enforce for check in rung.checks):
            yield f"Of what {rung.name} answers, nothing by itself: it has no check that acts."
        elif rung.name in certificate.unpromised_cuts:
            yield f"Of what {rung.name} answers while the rungs before it are gone, nothing: no row passes."
    if certificate.answered is None:
        yield (
            "Of everything answered, nothing: no rung has a check that acts, and the rows do not show an "
            f"error of at most {policy.answered_error:g}, or a model gives no probabilities to count by."
        )


def stopped_too_often(slices: ClassSlices) -> Iterator[str]:
    """The classes that one cut stops far more often than the budget, the worst first; one sentence."""
    worst = {one.name: one for one in (*slices.by_prediction, *slices.by_label) if one.flagged}
    if worst:
        named = ", ".join(f"{name} ({one.stopped:.1%} of {one.rows})" for name, one in worst.items())
        yield f"Of single classes, nothing: the guards stop more than three times the budget of {named}."


def _of_guards(policy: Policy, certificate: Certificate, forms: Collection[str]) -> Iterator[str]:
    guards = certified_guards(policy)
    for guard in guards:
        if not guard.enforce:
            yield f"{guard.name} is only observed: it stops nothing, and has its part of the budget."
    alarm = certificate.false_alarm
    if policy.false_alarm_by is not None and alarm is not None and not alarm.slices:
        yield "Of single slices (false_alarm_by), nothing: too few rows for a cut each, so there is one cut."
    alone = certificate.without_features
    if guards and (alone is None or not alone.promised):
        kept = assumed_without_primary(policy, forms) >= Verdict.DEFER
        end = "a guard without an input-only form stops every row" if kept else "no guard stops a row"
        yield f"Of good rows stopped while the primary is gone, nothing: {end} then."
