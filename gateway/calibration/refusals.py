"""Why a promise is refused: the line of the policy, what the whole file lacks, and what it would support."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gateway.calibration.rows_needed import (
    file_rows,
    least_budget,
    rows_for_budget,
    rows_for_error,
    supported_error,
)
from gateway.calibration.samples import Samples
from gateway.core.errors import PolicyError
from gateway.deployment.certification.absolute_error import MeanRefused
from gateway.deployment.deployment import Deployment
from gateway.policy.kinds.interval import IntervalPolicy
from gateway.policy.locate import Loc
from guards.detector import TooFewRows
from guards.selective import Counts, accepted_needed

MOST_BUDGET = 0.5
"""The largest budget that a policy may have."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Makes the errors of one calibration. samples: of the whole file."""

    deployment: Deployment
    samples: Samples

    def guard(self, i: int, error: ValueError, fit_rows: int, tail_rows: int) -> PolicyError:
        """A guard cannot be fitted."""
        has = self.samples.counted
        if isinstance(error, TooFewRows):
            to_fit = file_rows("fit", error.least)
            what = f"takes {to_fit} independent rows in the file, and it has {has}: give more"
            if (promised := self._rows_for_promises()) > to_fit:
                what += f"; what the policy promises takes {promised}"
            return self._error(("guards", i), what)
        of = f"{fit_rows} rows to fit on and {tail_rows} for its tail, of {has} independent rows in the file"
        return self._error(("guards", i), f"{error}. It had {of}")

    def _rows_for_promises(self) -> int:
        """The independent rows that every promise of the policy takes at least, if no answer is wrong."""
        policy = self.deployment.policy
        asked = [check.selective_error for rung in policy.rungs for check in rung.checks]
        asked += [] if policy.answered_error is None else [policy.answered_error]
        errors = [rows_for_error(r, policy.delta, 0.0) for r in asked]
        return max(rows_for_budget(policy.false_alarm_budget, policy.delta), *errors)

    def budget(self, cut_rows: int) -> PolicyError:
        """The false-alarm budget is too small for the file."""
        policy = self.deployment.policy
        a, delta, has = policy.false_alarm_budget, policy.delta, self.samples.counted
        what = (
            f"{a:g} at confidence {1 - delta:.12g} takes {rows_for_budget(a, delta)} independent rows in the "
            f"file, and it has {has}: give more"
        )
        least = least_budget(cut_rows, delta)
        if least <= MOST_BUDGET:
            what += f", or a budget of at least {least:g}"
        return self._error(("false_alarm_budget",), what)

    def rung(self, rung: int, surest: Counts, tests: int) -> PolicyError:
        """No cut of a rung's check keeps its promise. tests: the rows of the fold that tests it."""
        policy = self.deployment.policy.rungs[rung]
        check = policy.checks[0]
        what = self._error_promise(check.selective_error, surest, tests, "selective_error")
        if isinstance(check, IntervalPolicy) and check.max_width is not None and not surest.accepted:
            what += "; a larger max_width lets more of them leave"
        return self._error(("rungs", rung, "checks", 0, "selective_error"), f"rung {policy.name}: {what}")

    def answered(self, surest: Counts, tests: int) -> PolicyError:
        """No combination of cuts keeps the promise of everything answered."""
        policy = self.deployment.policy
        assert policy.answered_error is not None, "required where errors can be counted"
        what = self._error_promise(policy.answered_error, surest, tests, "answered_error")
        unchecked = [r.name for r in policy.rungs if not any(check.enforce for check in r.checks)]
        if unchecked:
            what += f"; {' and '.join(unchecked)} has no check that acts and answers all that reaches it"
        return self._error(("answered_error",), what)

    def mean(self, refused: MeanRefused) -> PolicyError:
        """The answers are off by too much, or too few of them show that they are not."""
        limit = self.deployment.policy.absolute_error
        assert limit is not None, "refused because the policy asks for it"
        if not refused.n:
            what = "cannot be certified: none of the rows that test it is answered"
            return self._error(("absolute_error", "mean"), what)
        what = f"a mean of {limit.mean:g} is not kept: the {refused.n} answers that test it are off by "
        what += f"{refused.average:.4g} on average, and that supports a mean of {_up(refused.bound)}"
        what += "; more rows support a smaller one" if refused.average < limit.mean else ""
        return self._error(("absolute_error", "mean"), what)

    def _error_promise(self, r: float, surest: Counts, tests: int, field: str) -> str:
        delta, has = self.deployment.policy.delta, self.samples.counted
        needed = accepted_needed(0, r, delta)
        if not surest.accepted and tests < needed:
            least = rows_for_error(r, delta, 0.0)
            what = (
                f"{r:g} takes at least {least} independent rows in the file, if all are answered and none is"
            )
            return f"{what} wrong. It has {has}, of which {tests} test this"
        if not surest.accepted:
            return f"{r:g} cannot be certified: none of the {tests} rows that test it is answered"
        share = surest.errors / surest.accepted
        supported = supported_error(surest, delta)
        known = f"These rows support {field}: {supported:g}"
        advice = known if supported < 1 else "These rows support no promise about it"
        if surest.accepted < needed:
            rows = file_rows("risk", math.ceil(needed * tests / surest.accepted))
            return (
                f"{r:g} takes about {rows} independent rows in the file even if no answer is wrong. It has "
                f"{has}: {tests} test this, {surest.accepted} of them are accepted at the safest cut, and "
                f"{needed} would have to be. {advice}"
            )
        what = (
            f"{r:g} is not kept: of the {surest.accepted} answers that test it at the safest cut "
            f"{surest.errors} are wrong ({share:.2%}). {advice}"
        )
        if share < r:
            what += f"; about {rows_for_error(r, delta, share)} rows in the file would certify {r:g}"
        return what

    def _error(self, at: Loc, what: str) -> PolicyError:
        warning = f". {self.samples.warning}" if self.samples.warning else ""
        return PolicyError([self.deployment.problem(at, what + warning)])


def _up(number: float) -> str:
    """Four digits, rounded up, so that the number is one that is supported."""
    step = 10.0 ** (math.floor(math.log10(number)) - 3)
    return f"{math.ceil(number / step) * step:.4g}"
