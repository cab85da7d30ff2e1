"""Why a promise is refused: the line of the policy, what the whole file lacks, and what it would support."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.calibration.rows_needed import (
    least_budget,
    rows_for_budget,
    rows_for_error,
    supported_error,
)
from gateway.calibration.samples import Samples
from gateway.core.errors import PolicyError
from gateway.deployment.deployment import Deployment
from gateway.policy.locate import Loc
from guards.selective import Counts, accepted_needed


@dataclass(frozen=True, slots=True)
class Refusals:
    """Makes the errors of one calibration. samples: of the whole file."""

    deployment: Deployment
    samples: Samples

    def budget(self, cut_rows: int) -> PolicyError:
        """The false-alarm budget is too small for the file."""
        policy = self.deployment.policy
        needed = rows_for_budget(policy.false_alarm_budget, policy.delta)
        what = (
            f"{policy.false_alarm_budget:g} at confidence {1 - policy.delta:g} takes {needed} independent "
            f"rows in the file, and it has {self.samples.counted}: give more, or a budget of at least "
            f"{least_budget(cut_rows, policy.delta):g}"
        )
        return self._error(("false_alarm_budget",), what)

    def rung(self, rung: int, surest: Counts) -> PolicyError:
        """No cut of a rung's check keeps its promise."""
        policy = self.deployment.policy.rungs[rung]
        what = self._error_promise(policy.checks[0].selective_error, surest, "selective_error")
        return self._error(("rungs", rung, "checks", 0, "selective_error"), f"rung {policy.name}: {what}")

    def answered(self, surest: Counts) -> PolicyError:
        """No combination of cuts keeps the promise of everything answered."""
        policy = self.deployment.policy
        what = self._error_promise(policy.answered_error, surest, "answered_error")
        unchecked = [r.name for r in policy.rungs if not any(check.enforce for check in r.checks)]
        if unchecked:
            what += (
                f"; {' and '.join(unchecked)} has no check that acts and answers every row that reaches it"
            )
        return self._error(("answered_error",), what)

    def _error_promise(self, r: float, surest: Counts, field: str) -> str:
        delta = self.deployment.policy.delta
        if surest.accepted < accepted_needed(0, r, delta):
            needed, has = rows_for_error(r, delta, 0.0), self.samples.counted
            return (
                f"{r:g} takes at least {needed} independent rows in the file even if no answer is wrong. It "
                f"has {has}, a fifth of which tests this, and {surest.accepted} of them are accepted at the "
                f"surest cut: give more rows, or a larger {field}"
            )
        share = surest.errors / surest.accepted
        what = (
            f"{r:g} is not kept: of the {surest.accepted} surest answers that test it {surest.errors} are "
            f"wrong ({share:.2%}). These rows support {field}: {supported_error(surest, delta):g}"
        )
        if share < r:
            what += f"; about {rows_for_error(r, delta, share)} rows in the file would certify {r:g}"
        return what

    def _error(self, at: Loc, what: str) -> PolicyError:
        warning = f". {self.samples.warning}" if self.samples.warning else ""
        return PolicyError([self.deployment.problem(at, what + warning)])
