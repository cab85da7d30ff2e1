"""Measured shares of rows with exact intervals, and what the certificate promises of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from bench.deployment_under_test import RowOutcomes
from gateway.core.decision import OUTCOME_NAMES
from gateway.deployment.certificate import Certificate
from guards.selective import clopper_pearson_interval

CONFIDENCE = 0.95


class PromiseVerdict(StrEnum):
    """How the interval relates to the promise."""

    HOLDS = "holds"  # all of the interval keeps it
    CONSISTENT = "consistent"  # the interval holds the promise: too few rows to tell
    BROKEN = "BROKEN"  # none of the interval keeps it, for these rows
    NONE = ""  # nothing was promised, or there is no such row


@dataclass(frozen=True, slots=True)
class MeasuredShare:
    """`events` of `n` rows, and the largest share that the certificate allows if it bounds this."""

    what: str
    events: int
    n: int
    promised: float | None = None
    share: float = field(init=False)
    low: float = field(init=False)
    high: float = field(init=False)
    verdict: PromiseVerdict = field(init=False)

    def __post_init__(self) -> None:
        low, high = interval(self.events, self.n)
        found = {"share": self.events / max(self.n, 1), "low": low, "high": high}
        verdict = PromiseVerdict.NONE
        if self.promised is not None and self.n:
            broken = PromiseVerdict.BROKEN if low > self.promised else PromiseVerdict.CONSISTENT
            verdict = PromiseVerdict.HOLDS if high <= self.promised else broken
        for name, value in (found | {"verdict": verdict}).items():
            object.__setattr__(self, name, value)


def interval(events: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact two-sided interval of a share. Source: Clopper and Pearson, Biometrika 26 (1934)."""
    return clopper_pearson_interval(events, n, 1 - confidence)


def healthy(
    outcomes: RowOutcomes, y: NDArray[np.int64], certificate: Certificate, primary: str
) -> list[MeasuredShare]:
    """What the certificate promises while everything works.

    Of what the fallback answers here nothing is promised alone: these are the rows that the primary was
    unsure of. They count in `answered`.
    """
    alarm, selective, answered = (
        certificate.false_alarm,
        certificate.selective.get(primary),
        certificate.answered,
    )
    wrong = outcomes.wrong(y)
    return [
        _share("stopped by the guards", outcomes.stopped, alarm.budget if alarm else None),
        *(_share(outcome, outcomes.outcome == outcome) for outcome in OUTCOME_NAMES.values()),
        _share(
            "wrong among served", wrong, selective.risk if selective else None, outcomes.outcome == "served"
        ),
        _share("wrong among degraded", wrong, None, outcomes.outcome == "degraded"),
        _share("wrong among answered", wrong, answered.risk if answered else None, outcomes.answered),
    ]


def broken(
    outcomes: RowOutcomes, y: NDArray[np.int64], certificate: Certificate, primary: str
) -> list[MeasuredShare]:
    """What it promises while the primary fails: the guards by the input alone, and each fallback."""
    alarm, wrong = certificate.without_features, outcomes.wrong(y)
    if alarm is not None and not alarm.promised:
        alarm = None
    fallbacks = [
        (name, one.risk) for name, one in certificate.selective.items() if one.while_gone == [primary]
    ]
    return [
        _share("stopped by the guards", outcomes.stopped, alarm.budget if alarm else None),
        *(_share(outcome, outcomes.outcome == outcome) for outcome in OUTCOME_NAMES.values()),
        *(
            _share(f"wrong among answers of {name}", wrong, risk, outcomes.by == name)
            for name, risk in fallbacks
        ),
        _share("wrong among answered", wrong, None, outcomes.answered),
    ]


def _share(
    what: str,
    events: NDArray[np.bool_],
    promised: float | None = None,
    among: NDArray[np.bool_] | None = None,
) -> MeasuredShare:
    if among is None:
        return MeasuredShare(what, int(events.sum()), len(events), promised)
    return MeasuredShare(what, int((events & among).sum()), int(among.sum()), promised)
