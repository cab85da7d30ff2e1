"""What can happen to a row: the verdict lattice and the closed sum of outcomes.

A **verdict** is how severely a stage judges a row. Verdicts form a bounded join-semilattice under `max`, so
the order of guards can never change the result, and the top is the only short-circuit:

    ALLOW < DEGRADE < DEFER < REFUSE

An **outcome** is where a row ends. There are four and nothing else can leave the pipeline; every place
that handles outcomes ends in `assert_never`, so the type checker proves that it handles them all.

    | guards say        | rung 0                             | rung 1  | review     | outcome               |
    |-------------------|------------------------------------|---------|------------|-----------------------|
    | allow             | answers, checks allow              | -       | -          | Served                |
    | allow             | error, timeout, or a check objects | answers | -          | Degraded(rung 1)      |
    | degrade           | skipped                            | answers | -          | Degraded(rung 1)      |
    | allow or degrade  | fails                              | fails   | accepts    | Deferred              |
    | defer             | -                                  | -       | accepts    | Deferred              |
    | what needs review |                                    |         | over quota | Refused(rate_limited) |
    | what needs review |                                    |         | full, down | Refused(unavailable)  |
    | what needs review |                                    |         | none       | Refused(the reason)   |
    | all but refuse    | cannot take the row                | -       | -          | Refused(invalid)      |
    | refuse            |                                    |         |            | Refused(the reason)   |
    | a stopped model   |                                    |         |            | Refused(stopped)      |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, TypeAlias, assert_never

from numpy.typing import NDArray

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Named arrays whose first axis is the row."""


class Verdict(IntEnum):
    """How severely a stage judges a row. The join of several verdicts is their maximum."""

    ALLOW = 0
    DEGRADE = 1
    DEFER = 2
    REFUSE = 3


class Reason(StrEnum):
    """The stable codes that callers see. Coarse: a finer one would be an oracle for attackers."""

    OK = "ok"
    ABSTAINED = "abstained"  # any judgement of the input or of the answer
    RATE_LIMITED = "rate_limited"  # rate and every other budget of the caller
    UNAVAILABLE = "unavailable"  # a model or the review queue has failed or is full
    DEADLINE = "deadline"
    STOPPED = "stopped"  # the model is stopped, or the rung that had answered
    INVALID = "invalid"  # the first rung's model cannot take the row: the caller's to correct


@dataclass(frozen=True, slots=True)
class Served:
    """The primary answered and every guard and check allowed it."""

    output: Tensors
    by: str


@dataclass(frozen=True, slots=True)
class Degraded:
    """A fallback answered; `by` names it."""

    output: Tensors
    by: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Deferred:
    """A reviewer will answer; `ticket` is the id under which the caller polls for it."""

    ticket: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Refused:
    """No answer will come. Needs no other part, so it cannot fail."""

    reason: Reason
    retry_after_s: float | None = None


Outcome: TypeAlias = Served | Degraded | Deferred | Refused

OUTCOME_NAMES: Mapping[type[Outcome], str] = {
    Served: "served",
    Degraded: "degraded",
    Deferred: "deferred",
    Refused: "refused",
}
"""What replies, the audit log and pages call each outcome; the order is that of `severity`."""
VERDICT_NAMES = tuple(verdict.name.lower() for verdict in Verdict)
"""What policies, metrics and the audit log call each verdict, by its value."""


def severity(outcome: Outcome) -> int:
    """0 served to 3 refused. A request is reported by its most severe row."""
    match outcome:
        case Served():
            return 0
        case Degraded():
            return 1
        case Deferred():
            return 2
        case Refused():
            return 3
        case _:
            assert_never(outcome)


class Finding(NamedTuple):
    """What one guard, check or rung found for one row. For the audit log, never for callers."""

    stage: str
    score: float | None
    verdict: Verdict
    enforced: bool
    elapsed_s: float
    form: str = "full"
    error: str | None = None


class Decision(NamedTuple):
    """One row's outcome with everything needed to explain it, and the policy that judged it (if any did).

    repeats: whether the row was asked before by the same caller, which learns nothing new.
    """

    id: str
    outcome: Outcome
    findings: Sequence[Finding] = ()
    policy: str = ""
    repeats: bool = False


def deferred_ids(decisions: Iterable[Decision]) -> list[str]:
    """The ids of the rows that wait for a person, in order."""
    return [one.id for one in decisions if isinstance(one.outcome, Deferred)]
