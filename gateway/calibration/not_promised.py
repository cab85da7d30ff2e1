"""What a policy or its calibration rows leave without a promise, one sentence each."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gateway.calibration.rows_needed import file_rows
from gateway.calibration.slices import ClassSlices
from gateway.core.decision import Verdict
from gateway.deployment.certificate import Certificate, ClassNames
from gateway.deployment.certification.alarms import assumed_without_primary, certified_guards
from gateway.policy.schema import Policy
from guards.order_statistic import samples_needed

SHOWN_CLASSES = 20


def not_promised(
    policy: Policy, certificate: Certificate, forms: Collection[str], unlabelled: Collection[str]
) -> Iterator[str]:
    """The sentences. forms: the guards with an input-only form; unlabelled: rungs without probabilities."""
    if policy.task == "opaque":
        yield "Of errors, nothing: task: opaque has no true values to count them by."
    yield from _of_guards(policy, certificate, forms)
    yield from _of_inputs(policy, certificate)
    yield from _of_classes(certificate)
    for depth, rung in enumerate(policy.rungs):
        if rung.name in certificate.selective:
            if depth:
                yield (
                    f"Of the rows that {rung.name} answers while an earlier rung works, nothing by itself: "
                    "these are the hard ones, and count in everything answered."
                )
        elif not any(check.enforce for check in rung.checks):
            if policy.task == "opaque":
                continue
            yield f"Of what {rung.name} answers, nothing by itself: it has no check that acts."
        elif rung.name in certificate.unpromised_cuts:
            yield f"Of what {rung.name} answers while the rungs before it are gone, nothing: no row passes."
    if policy.task == "opaque":
        return
    if certificate.answered is None and unlabelled:
        named = " and ".join(unlabelled)
        what = "interval (kind: interval)" if policy.task == "regression" else "probabilities or labels"
        yield f"Of everything answered, nothing: {named} gives no {what} to count errors by."
    elif certificate.answered is None:
        yield (
            "Of everything answered, nothing: no rung has a check that acts, and the rows do not show an "
            f"error of at most {policy.answered_error:g}."
        )


def _of_inputs(policy: Policy, certificate: Certificate) -> Iterator[str]:
    for name, reason in certificate.unguarded.items():
        yield f"Of the input {name}, nothing: it is not guarded, since {reason}."


def _of_classes(certificate: Certificate) -> Iterator[str]:
    target = certificate.target
    if isinstance(target, ClassNames) and target.unseen:
        shown = ", ".join(target.unseen[:SHOWN_CLASSES])
        more = f" and {len(target.unseen) - SHOWN_CLASSES} more" * (len(target.unseen) > SHOWN_CLASSES)
        yield f"Of rows of the classes {shown}{more}, nothing: calibration saw none."


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
        needed = file_rows("cut", 2 * samples_needed(policy.false_alarm_budget, policy.delta / 2))
        yield (
            "Of single slices (false_alarm_by), nothing: too few rows for a cut each, so there is one cut. "
            f"Two slices take at least {needed} independent rows in the file."
        )
    if policy.false_alarm_by == "predicted_class" and certificate.without_features is not None:
        yield "Of single classes while the primary is gone, nothing: no class is predicted then."
    alone = certificate.without_features
    if guards and (alone is None or not alone.promised):
        kept = assumed_without_primary(policy, forms) >= Verdict.DEFER
        end = "a guard without an input-only form stops every row" if kept else "no guard stops a row"
        yield f"Of good rows stopped while the primary is gone, nothing: {end} then."
