"""What the runs of an attack say together: success, cost and first alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.calibration.slices import exact_interval
from gateway.redteam.records import Checkpoint, Evasion, Extraction, Harm, RunRecord

FIDELITY = 0.9


@dataclass(frozen=True, slots=True)
class Success:
    """Of n runs that were not cut short: how many succeeded, and the share's exact 95 % interval."""

    n: int
    successes: int
    low: float
    high: float

    @classmethod
    def of(cls, runs: Sequence[RunRecord]) -> Success:
        ended = [one.ended == "success" for one in runs if one.counted]
        return cls(len(ended), sum(ended), *exact_interval(sum(ended), len(ended)))

    @property
    def share(self) -> float | None:
        return self.successes / self.n if self.n else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """A cost with the gateway over that without. at_least: no run succeeded, so it is a lower bound."""

    value: float
    at_least: bool

    def __str__(self) -> str:
        shown = f"{self.value:,.1f}" if self.value < 100 else f"{self.value:,.0f}"
        return f"> {shown}" if self.at_least else shown


def queries_median(runs: Sequence[RunRecord]) -> float | None:
    """Of the runs that succeeded; None without one."""
    found = [one.queries for one in runs if one.ended == "success"]
    return float(np.median(found)) if found else None


def first_alarm_median(runs: Sequence[RunRecord]) -> float | None:
    """Over all runs, one without an alarm as later than any; None where that is the median."""
    found = sorted(float("inf") if one.first_alarm is None else float(one.first_alarm) for one in runs)
    if not found:
        return None
    middle = found[(len(found) - 1) // 2]
    return middle if np.isfinite(middle) else None


def cost(runs: Sequence[RunRecord]) -> tuple[int, int]:
    """All queries of the runs that were not cut short, and how many of these runs succeeded."""
    ended = [one for one in runs if one.counted]
    return sum(one.queries for one in ended), sum(one.ended == "success" for one in ended)


def cost_ratio(evasion: Evasion) -> Ratio | None:
    """Queries a success with the gateway over queries a success without, over the same rows.

    Failed runs count with all their queries: what an attacker pays on average for one success. None where
    there is no bare model, no run, or no success without the gateway.
    """
    if not evasion.bare:
        return None
    paid, won = cost(evasion.runs)
    bare_paid, bare_won = cost(evasion.bare)
    if not paid or not bare_won:
        return None
    return Ratio(paid / max(won, 1) / (bare_paid / bare_won), won == 0)


def rows_to_fidelity(curve: Sequence[Checkpoint], fidelity: float = FIDELITY) -> int | None:
    """The rows sent at the first checkpoint of this fidelity; None where none has it."""
    return next((one.rows for one in curve if one.fidelity >= fidelity), None)


def rows_ratio(curve: Sequence[Checkpoint], bare: Sequence[Checkpoint]) -> Ratio | None:
    """Rows to the fidelity with the gateway over rows without; a bound where its curve ends below."""
    without, within = rows_to_fidelity(bare), rows_to_fidelity(curve)
    if without is None or not curve:
        return None
    return Ratio((within or curve[-1].rows) / without, within is None)


def harmed(harm: Harm | None) -> float | None:
    """The share of honest rows that were not served."""
    return harm.harmed / harm.rows if harm is not None and harm.rows else None


@dataclass(frozen=True, slots=True)
class Wait:
    """How long replies make a thief wait. at_least: it is a lower bound."""

    seconds: float
    at_least: bool


def wait_to_fidelity(theft: Extraction) -> Wait | None:
    """How long a thief that keeps to `Retry-After` waits until it has the fidelity.

    Where the theft came so far: what it waited. Where it did not, but was told to wait: until as many rows
    are answered as are needed without the gateway, at the pace at which they were; a thief that knows no
    better way needs as many. Where it was not told to: what it waited, as a lower bound. None where the
    fidelity is not reached without the gateway, or no row was sent.
    """
    without = rows_to_fidelity(theft.bare)
    reached = next((one for one in theft.curve if one.fidelity >= FIDELITY), None)
    if reached is not None:
        return Wait(reached.waited_s, False)
    if without is None or not theft.curve:
        return None
    missing = without - theft.curve[-1].answered
    if missing <= 0 or theft.pace is None:
        return Wait(theft.waited_s, True)
    return Wait(theft.waited_s + (missing / theft.pace if theft.pace > 0 else float("inf")), True)
