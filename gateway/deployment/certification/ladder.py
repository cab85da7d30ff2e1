"""The certified cut of every rung's check, and the certified error of everything answered.

Two statements bound errors: of what a rung answers while the rungs before it are gone (`selective`), and of
everything answered while every model works (`answered`). Both are tested on the fold `risk`. Which cuts are
tried, and in which order, is planned on other folds, so `guards/selective.py` applies without an assumption
about how the error depends on the cut, and every combination of cuts that passes may be chosen.

A rung whose check is missing or only observed answers all that reaches it: it counts in `answered` as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from gateway.core.rows import Mask
from gateway.deployment.certification.paths import CLOSED, NO_RUNG, OPEN, LadderRows
from gateway.policy.kinds import CheckPolicy
from gateway.policy.schema import Policy, RungPolicy
from guards.selective import (
    LEAST_MARGIN,
    CertifiedCuts,
    Counts,
    Labelled,
    certified_cuts,
    margins,
    passing,
)

COMBINATIONS = 40_000
"""How many combinations of the rungs' cuts are tried for `answered`, at most about."""
WORTH_AN_OPEN_RUNG = 0.99
"""The share of answered rows from which a combination is preferred that closes fewer rungs."""


class RungRefused(Exception):
    """No cut of a rung certifies its `selective_error`. tests: the rows of the fold `risk`."""

    def __init__(self, rung: int, surest: Counts, tests: int) -> None:
        super().__init__(f"rung {rung}")
        self.rung, self.surest, self.tests = rung, surest, tests


class AnsweredRefused(Exception):
    """No combination of the rungs' cuts certifies `answered_error`. tests: the rows of `risk`."""

    def __init__(self, surest: Counts, tests: int) -> None:
        super().__init__("answered_error")
        self.surest, self.tests = surest, tests


@dataclass(frozen=True, slots=True)
class Ladder:
    """cuts: of every rung, `OPEN` where its check does not act; own: of every check, also if only observed.

    answered: whether `answered_error` is certified; else why not is for the caller to say.
    """

    cuts: tuple[float, ...]
    own: dict[str, float]
    answered: bool


def enforced_check(rung: RungPolicy) -> CheckPolicy | None:
    """The check that acts on a rung's answers."""
    return next((check for check in rung.checks if check.enforce), None)


def certify_ladder(policy: Policy, pilot: LadderRows, test: LadderRows, *, kept: bool = False) -> Ladder:
    """The loosest certified cuts: the first rung's, then the next one's beside it.

    Args:    pilot: rows to plan on; test: rows that nothing was fitted or planned on; kept: whether every row
             is kept from the fallbacks while the primary is gone, so that nothing is promised of them then.
    Raises:  RungRefused, AnsweredRefused.
    Cost:    O(n log n), and some ten sums over 40,000 combinations.
    """
    found: list[CertifiedCuts | None] = []
    for depth, rung in enumerate(policy.rungs):
        promised = enforced_check(rung) is not None and not (depth and kept)
        found.append(_rung_cuts(policy, depth, pilot, test, promised=promised) if rung.checks else None)
    own = {
        rung.name: cuts.certified[-1]
        for rung, cuts in zip(policy.rungs, found, strict=True)
        if cuts is not None
    }
    acting = [cuts if enforced_check(rung) else None for rung, cuts in zip(policy.rungs, found, strict=True)]
    loosest = tuple(OPEN if cuts is None else cuts.certified[-1] for cuts in acting)
    if policy.answered_error is None or any(rung.wrong is None for rung in test.rungs):
        return Ladder(loosest, own, answered=False)
    best = _loosest_combination(policy, acting, pilot, test)
    if best is None:
        if not any(acting):
            return Ladder(loosest, own, answered=False)
        raise AnsweredRefused(_answered(test, _strictest(acting)), len(test.verdicts))
    own |= {r.name: cut for r, cut, a in zip(policy.rungs, best, acting, strict=True) if a is not None}
    return Ladder(best, own, answered=True)


def _rung_cuts(
    policy: Policy, depth: int, pilot: LadderRows, test: LadderRows, *, promised: bool
) -> CertifiedCuts:
    """The cuts of one rung's check, certified while the rungs before it are gone.

    Without a promise about the rung, cuts that nothing certifies will do.
    """
    r = policy.rungs[depth].checks[0].selective_error
    found = certified_cuts(_reached(pilot, depth), _reached(test, depth), r, policy.delta)
    if found.certified or not promised:
        return found if found.certified else replace(found, certified=found.tried or (CLOSED,))
    raise RungRefused(depth, found.surest, len(test.verdicts))


def _reached(rows: LadderRows, depth: int) -> Labelled:
    """The rows that reach a rung while those before it are gone."""
    reached, rung = rows.reached(depth), rows.rungs[depth]
    assert rung.suspicion is not None
    assert rung.wrong is not None
    return Labelled(rung.suspicion[reached], rung.wrong[reached])


def _loosest_combination(
    policy: Policy, acting: Sequence[CertifiedCuts | None], pilot: LadderRows, test: LadderRows
) -> tuple[float, ...] | None:
    """The combination of which `answered` and each rung's own statement hold, None without one.

    Of those that answer nearly as many pilot rows as any, the one that closes the fewest rungs (a closed one
    is no fallback while the primary is gone), then with the loosest first cut, then second. Combinations that
    are surest on the pilot rows are tested first.
    """
    r, delta = policy.answered_error, policy.delta
    assert r is not None, "required where errors can be counted"
    grids = _grids(acting)
    scale = len(test.verdicts) / max(1, len(pilot.verdicts))
    planned, wrong = pilot.counts(grids)
    expected = margins(planned, wrong, r, delta, scale).ravel()
    order = np.argsort(-expected, kind="stable")[: int((expected >= LEAST_MARGIN).sum())]
    answered, errors = (counts.ravel()[order] for counts in test.counts(grids))
    passed = order[: passing(answered, errors, r, delta)]
    own = [_is_certified(grid, one) for grid, one in zip(grids, acting, strict=True)]
    allowed = passed[reduce(np.logical_and.outer, own).ravel()[passed]]
    if not allowed.size:
        return None
    answers, shape = planned.ravel()[allowed], [len(grid) for grid in grids]
    good = allowed[answers >= WORTH_AN_OPEN_RUNG * answers.max()]
    places = np.unravel_index(good, shape)
    closed = np.sum([np.equal(grid, CLOSED)[at] for grid, at in zip(grids, places, strict=True)], axis=0)
    best = good[closed == closed.min()].max()  # grids ascend: the loosest first cut, then the loosest second
    return tuple(grid[int(i)] for grid, i in zip(grids, np.unravel_index(best, shape), strict=True))


def _is_certified(grid: Sequence[float], cuts: CertifiedCuts | None) -> Mask:
    """bool[grid]: the cuts of which the rung's own statement holds, or that no row passes."""
    return np.array([cuts is None or cut == CLOSED or cut in cuts.certified for cut in grid])


def _grids(acting: Sequence[CertifiedCuts | None]) -> list[tuple[float, ...]]:
    """The cuts of each rung that are combined. A later rung may also stay closed; the first may not."""
    most = int(COMBINATIONS ** (1 / max(1, sum(one is not None for one in acting))))
    grids: list[tuple[float, ...]] = []
    for depth, one in enumerate(acting):
        if one is None:
            grids.append((OPEN,))
            continue
        at = np.unique(np.linspace(0, len(one.tried) - 1, most).round().astype(int)) if one.tried else ()
        grids.append(((CLOSED,) if depth or not one.tried else ()) + tuple(one.tried[i] for i in at))
    return grids


def _strictest(acting: Sequence[CertifiedCuts | None]) -> tuple[float, ...]:
    return tuple(
        OPEN if one is None else CLOSED if depth or not one.tried else one.tried[0]
        for depth, one in enumerate(acting)
    )


def _answered(rows: LadderRows, cuts: Sequence[float]) -> Counts:
    """Everything answered while every model works."""
    by = rows.answered_by(cuts)
    return Counts(int((by != NO_RUNG).sum()), int(rows.wrong(by).sum()))
