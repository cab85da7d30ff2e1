"""The numbers of a certificate, computed from the scores that calibration kept, and what differs from them.

What follows from these scores is compared with what the certificate says: cuts, counts, bounds and shares,
of every slice and rung, with and without the primary. Counts and texts have to be equal; other numbers may
differ by one part in 10^9, since logarithms differ in their last digit between processors.

The rest of the certificate takes the models or the rows themselves, and is bound by its signature alone:
`population`, `samples`, `target`, `parity`, `not_promised`, and the attempts in `confidence`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gateway.core.decision import Verdict
from gateway.core.errors import ArtifactError, Problem
from gateway.deployment.certificate import Certificate, FalseAlarm
from gateway.deployment.certification.absolute_error import MeanRefused
from gateway.deployment.certification.alarms import (
    Alarms,
    BudgetRefused,
    assumed_without_primary,
    certify_guards,
    ladder_rows,
)
from gateway.deployment.certification.ladder import AnsweredRefused, Ladder, RungRefused, certify_ladder
from gateway.deployment.certification.paths import LadderRows
from gateway.deployment.certification.scores import CertifyingScores, FoldScores
from gateway.deployment.certification.statements import ErrorStatements, confidence, error_statements
from gateway.deployment.promises import promises
from gateway.policy.schema import Policy

RELATIVE = 1e-9
"""How far a number may be from the recomputed one, as a part of it."""


def certify_cuts(
    policy: Policy, tail: FoldScores, cut: FoldScores, risk: FoldScores
) -> tuple[Alarms, Ladder, LadderRows]:
    """Every cut, and the rows of `risk` before the ladder.

    Raises:  BudgetRefused, RungRefused, AnsweredRefused.
    """
    alarms = certify_guards(policy, cut)
    pilot = ladder_rows(policy, tail, alarms).beside(ladder_rows(policy, cut, alarms))
    test = ladder_rows(policy, risk, alarms)
    return alarms, certify_ladder(policy, pilot, test, kept=all_kept(policy, cut)), test


def all_kept(policy: Policy, fold: FoldScores) -> bool:
    """Whether every row is kept from the fallbacks while the primary is gone."""
    return assumed_without_primary(policy, fold.input_only) >= Verdict.DEFER


def numbers_of(policy: Policy, alarms: Alarms, errors: ErrorStatements, cut: FoldScores) -> dict[str, object]:
    """The fields of the certificate that follow from the scores."""
    alone: FalseAlarm | None = alarms.input_only and alarms.input_only.model_copy(
        update={"promised": not all_kept(policy, cut)}
    )
    return {
        "false_alarm": alarms.full,
        "without_features": alone,
        "selective": dict(errors.selective),
        "unpromised_cuts": dict(errors.unpromised_cuts),
        "answered": errors.answered,
        "absolute_error": errors.absolute,
    }


def recomputed(policy: Policy, certificate: Certificate, scores: CertifyingScores) -> Certificate:
    """The certificate with every number that follows from the scores.

    Raises:  ArtifactError if the scores do not support what the policy asks for.
    Cost:    O(n log n), and some sums over 40,000 combinations of cuts: 10 to 100 ms for 10,000 rows.
    """
    try:
        alarms, ladder, test = certify_cuts(policy, scores.tail, scores.cut, scores.risk)
        errors = error_statements(policy, ladder, test, scores.answered_by, scores.absolute_errors)
    except (BudgetRefused, RungRefused, AnsweredRefused, MeanRefused, ValueError) as error:
        what = f"the kept calibration scores do not certify what gateway.yaml asks for ({error})"
        raise ArtifactError([Problem("", what)]) from error
    rows = certificate.rows | {"cut": len(scores.cut), "risk": len(scores.risk)}
    update = numbers_of(policy, alarms, errors, scores.cut) | {"rows": rows, "conditions": scores.conditions}
    found = certificate.model_copy(update=update)
    told = certificate.confidence
    sure = confidence(policy.delta, len(promises(found)), told.attempts, policy.delta)
    over_attempts = min(told.over_attempts, sure.each)
    return found.model_copy(update={"confidence": sure.model_copy(update={"over_attempts": over_attempts})})


def differences(certificate: Certificate, found: Certificate) -> Iterator[tuple[str, str]]:
    """The fields in which a certificate differs from the recomputed one, each with both values."""
    yield from _differences("", certificate.model_dump(mode="json"), found.model_dump(mode="json"))


def _differences(at: str, says: Any, gives: Any) -> Iterator[tuple[str, str]]:
    if isinstance(says, dict) and isinstance(gives, dict) and says.keys() == gives.keys():
        for key in says:
            yield from _differences(f"{at}.{key}" if at else key, says[key], gives[key])
    elif isinstance(says, list) and isinstance(gives, list) and len(says) == len(gives):
        for i, (one, other) in enumerate(zip(says, gives, strict=True)):
            yield from _differences(f"{at}.{i}", one, other)
    elif not _equal(says, gives):
        yield at, f"says {_short(says)}, the kept calibration scores give {_short(gives)}"


def _equal(says: Any, gives: Any) -> bool:
    if isinstance(says, float) and isinstance(gives, float):
        return math.isclose(says, gives, rel_tol=RELATIVE, abs_tol=0.0)
    return bool(says == gives)


def _short(value: Any) -> str:
    return "something else" if isinstance(value, (dict, list)) else "nothing" if value is None else f"{value}"
