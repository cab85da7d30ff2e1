"""What calibration saw: the judged rows, their scores and where each of them ended. The report shows it.

The judged rows are those of the folds `cut` and `risk`: nothing was fitted on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallbacks.roles import PROBABILITIES
from gateway.calibration.certify import Certified
from gateway.calibration.fold_scores import fold_scores, row_slices
from gateway.calibration.wrong import wrong_answers
from gateway.core.decision import VERDICT_NAMES, Verdict
from gateway.core.rows import F8, Mask
from gateway.deployment.certification.alarms import (
    Alarms,
    certified_guards,
    joint_risk,
    ladder_rows,
    shares,
    shifts_of,
)
from gateway.deployment.certification.ladder import Ladder, enforced_check
from gateway.policy.kinds.interval import IntervalPolicy, RelativeWidth
from gateway.policy.kinds.kind import CertifiedGuardKind
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy, RungPolicy
from guards.fitted_prices import FittedPrices


@dataclass(frozen=True, slots=True, eq=False)
class GuardEvidence:
    """One certified guard over n judged rows.

    scores: float64[n] nats; cut: on the same scale, from which a row gets `verdict`. input_only_*: the same
    for the form that judges while the primary is gone, None without one.
    """

    name: str
    kind: str
    verdict: str
    enforced: bool
    scores: F8
    cut: float
    input_only_scores: F8 | None
    input_only_cut: float | None


@dataclass(frozen=True, slots=True, eq=False)
class RungEvidence:
    """One rung over n judged rows.

    probabilities: float[n, k], None where the model has no such output. wrong: bool[n], None if unknown.
    suspicion, cut: of its check, None without one; a row passes below the cut. enforced: whether it acts.
    relative: whether the suspicion is an interval's width as a share of the number.
    """

    name: str
    probabilities: NDArray[Any] | None
    wrong: Mask | None
    suspicion: F8 | None
    cut: float | None
    enforced: bool
    relative: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Everything about the n judged rows.

    rows: inputs, labels and answers. tail: other held-out rows, disjoint from them, for a temperature.
    joint: float64[n], the risk that the false-alarm cut is set on, None without certified guards. stopped:
    bool[n], rows that the enforced certified guards stop. by: int64[n], the rung that answers while every
    model works, -1 where none does. prices: fitted to honest callers, by the name of the guard.
    """

    rows: CalibrationRows
    tail: CalibrationRows
    guards: tuple[GuardEvidence, ...]
    rungs: tuple[RungEvidence, ...]
    joint: F8 | None
    stopped: Mask
    by: NDArray[Any]
    prices: Mapping[str, FittedPrices] = field(default_factory=dict)


def evidence_of(policy: Policy, found: Certified) -> Evidence:
    """The evidence behind certified cuts."""
    judged, alarms, ladder = found.judged, found.alarms, found.ladder
    seen = judged["cut"].beside(judged["risk"])
    with_answer, without = (row_slices(policy, seen.rows, with_answer=one) for one in (True, False))
    full = _shifted(seen.full, shifts_of(alarms.full, with_answer))
    alone = _shifted(seen.input_only, shifts_of(alarms.input_only, without))
    ends = ladder_rows(policy, fold_scores(policy, seen), alarms)
    return Evidence(
        rows=seen.rows,
        tail=judged["tail"].rows,
        guards=tuple(_guard(guard, full, alone, alarms) for guard in certified_guards(policy)),
        rungs=tuple(_rung(policy, rung, seen.rows, ladder) for rung in policy.rungs),
        joint=joint_risk(full, shares(policy)),
        stopped=np.asarray(ends.verdicts > Verdict.ALLOW),
        by=ends.answered_by(ladder.cuts),
        prices=found.fitted.prices,
    )


def _shifted(scores: Mapping[str, F8], shifts: F8 | float) -> dict[str, F8]:
    return {name: np.asarray(one - shifts) for name, one in scores.items()}


def _guard(
    guard: CertifiedGuardKind, full: Mapping[str, F8], alone: Mapping[str, F8], alarms: Alarms
) -> GuardEvidence:
    assert alarms.full is not None
    return GuardEvidence(
        guard.name,
        guard.kind,
        VERDICT_NAMES[guard.verdict],
        guard.enforce,
        full[guard.name],
        alarms.full.cut - math.log(guard.share),
        alone.get(guard.name),
        alarms.input_only.cut if alarms.input_only and guard.name in alone else None,
    )


def _rung(policy: Policy, rung: RungPolicy, rows: CalibrationRows, ladder: Ladder) -> RungEvidence:
    answer, check = rows.answers[rung.name], next(iter(rung.checks), None)
    suspicion = None if check is None else check.suspicion(answer)
    enforced = enforced_check(rung) is not None
    wrong, cut = wrong_answers(policy, rung.name, rows), ladder.own.get(rung.name)
    relative = isinstance(check, IntervalPolicy) and isinstance(check.max_width, RelativeWidth)
    return RungEvidence(rung.name, answer.get(PROBABILITIES), wrong, suspicion, cut, enforced, relative)
