"""The confidence cut of every rung, and what they certify together."""

from __future__ import annotations

import numpy as np

from gateway.core.rows import F8, Mask
from gateway.deployment.certificate import Selective
from gateway.policy.kinds.rows import CalibrationRows
from gateway.policy.schema import Policy
from guards.selective import Acceptance, certified_acceptance, clopper_pearson_upper

COVERAGES = tuple(i / 200 for i in range(8, 201))
"""The shares of rows at which a cut is tried, from the strictest outward."""


def certify_ladder(
    policy: Policy, rows: CalibrationRows, passed: Mask, passed_without: Mask
) -> tuple[dict[str, Selective], Selective | None]:
    """The certified cut of every rung that has a check, and what they certify together.

    Args:    passed, passed_without: bool[n], the rows that the guards let pass, in full and by input alone.
    Raises:  ValueError: what cannot be certified, and how many rows would do.

    The first rung is certified on what the guards let pass. A later rung must hold twice: when it stands in
    for a primary that is gone, on the rows that the input-only form lets pass; and when it answers what the
    rungs before it were unsure of, so that of everything answered at most `answered_error` is wrong. The
    stricter cut counts, on either path: a cut that depended on the path would let a worse row end better.
    """
    certified: dict[str, Selective] = {}
    answered: Selective | None = None
    taken, wrong = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    for depth, rung in enumerate(policy.rungs):
        check = next(iter(rung.checks), None)
        if check is None:
            continue
        answer = rows.answers[rung.name]
        unsure, misses = check.suspicion(answer), answer["probabilities"].argmax(axis=1) != rows.y
        alone = passed_without if depth else passed
        found = certified_acceptance(
            unsure[alone], misses[alone], check.selective_error, policy.delta, COVERAGES
        )
        together, amiss = np.where(taken, -1.0, unsure)[passed], np.where(taken, wrong, misses)[passed]
        both = certified_acceptance(together, amiss, policy.answered_error, policy.delta, COVERAGES)
        cut = min(found.cut, both.cut)
        certified[rung.name] = _at_cut(found, unsure[alone], misses[alone], cut)
        answered = _at_cut(both, together, amiss, cut)
        wrong |= misses & ~taken & (unsure < cut)
        taken |= unsure < cut
    return certified, answered


def _at_cut(found: Acceptance, suspicion: F8, wrong: Mask, cut: float) -> Selective:
    """What a certified acceptance says at a cut that may be stricter than its own.

    A stricter cut errs no more often (what `guards.selective` assumes), so the bound of the looser one holds.
    """
    taken = suspicion < cut
    accepted, errors = int(taken.sum()), int(wrong[taken].sum())
    return Selective(
        risk=found.r,
        delta=found.delta,
        cut=cut,
        n=found.n,
        accepted=accepted,
        errors=errors,
        bound=min(found.bound, clopper_pearson_upper(errors, accepted, found.delta)),
        coverage=accepted / found.n,
    )
