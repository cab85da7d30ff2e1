"""Breaks the core and the certificate on purpose, one line at a time, and requires that the suite notices.

    python tests/mutants.py

Each mutant is one exact replacement in a copy of the tree; the suite of its folder runs against it and must fail.
Tests that hang have failed too, but only if they end once the line is mended. Two things are errors before the
first mutant: one that no longer applies, so this list cannot rot, and a suite that fails although nothing is broken,
as it would kill every mutant. As many run at a time as there are processors. Exit 0 if all die.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
CORE, GUARDS, FALLBACKS = "gateway/core", "guards", "fallbacks"
CERTIFICATION = "gateway/deployment/certification"
SUITES = {
    CORE: [
        f"tests/core/test_{name}.py"
        for name in (
            "decision_table",
            "budget",
            "answers",
            "deadline",
            "batching",
            "row_limit",
            "batch_size",
            "fair_queue",
            "deferral_cap",
            "brownout",
            "recall",
            "laws",
        )
    ],
    CERTIFICATION: [
        *(f"tests/deployment/certification/test_{name}.py" for name in ("paths", "alarms", "ladder")),
        "tests/calibration/test_rows_needed.py",
    ],
    FALLBACKS: [
        f"tests/fallbacks/test_{name}.py"
        for name in ("breaker", "failure_window", "stuck", "retry", "hedge", "worker", "breaker_model")
    ],
    GUARDS: [
        "tests/guards/test_order_statistic.py",
        "tests/guards/test_atoms.py",
        "tests/guards/test_selective.py",
    ],
}
"""What runs against a mutant of each folder: what kills most for its time comes first."""

End = Literal["passed", "failed", "hung"]
SHOWN = {"passed": "SURVIVED", "failed": "killed", "hung": "killed (hung)"}
LIMIT_S = 300
"""Tests that take longer hang: with nothing broken, no suite takes a quarter of it."""


@dataclass(frozen=True)
class Mutant:
    description: str
    file: str
    old: str
    new: str
    folder: str = CORE

    def tests(self) -> list[str]:
        """Its suite; the test files whose names share a word with that of its file come first."""
        words = set(Path(self.file).stem.split("_"))
        return sorted(SUITES[self.folder], key=lambda test: -len(words & set(Path(test).stem.split("_"))))


MUTANTS = (
    Mutant("a score at the cut is allowed", "stage.py", "scores >= cut", "scores > cut"),
    Mutant("NaN is a low score", "stage.py", "np.flatnonzero(np.isnan(scores))", "[]"),
    Mutant("-inf is a low score", "stage.py", "scores = np.where(np.isneginf(scores), np.nan, scores)", "pass"),
    Mutant("every assessment allows all", "stage.py", "most < self.lowest_cut", "True"),
    Mutant("-inf is allowed", "stage.py", "least > -math.inf and", ""),
    Mutant("a failed guard means allow", "stage.py", "verdicts[list(errors)] = self.on_error", "pass"),
    Mutant("one bad row decides for all", "stage.py", "if n > 1:", "if n > 1_000:"),
    Mutant("a guard may return any shape", "stage.py", "if scores.shape != (n,):", "if False:"),
    Mutant("rows without features are allowed", "stage.py", "np.full(n, self.without_features, np.int8)", "np.zeros(n, np.int8)"),
    Mutant("rows without features are judged with features", "stage.py", "if answer.all_ok:", "if answer.ok.any():"),
    Mutant("merged rows keep their first positions", "stage.py", "scores[rows], verdicts[rows] =", "scores[: len(rows)], verdicts[: len(rows)] ="),
    Mutant("a budget refuses only above its limit", "budget.py", "-math.inf < score < self.refuse_from", "-math.inf < score <= self.refuse_from"),
    Mutant("a budget that fails lets rows pass", "budget.py", "verdicts[failed], columns[failed] = self.on_error, np.nan", "pass"),
    Mutant("a budget that fails closed lets rows pass", "budget.py", "if self.on_error is Verdict.REFUSE else None", "if False else None"),
    Mutant("an observed budget refuses", "budget.py", "if not self.enforce:", "if False:"),
    Mutant("a budget may score too few rows", "budget.py", "if len(scores) != rows:", "if False:"),
    Mutant("the first row is charged twice", "budget.py", "stage.charge(principal, rows - len(scores))", "stage.charge(principal, rows)"),
    Mutant("only the first row is charged", "budget.py", "if rows > len(scores):", "if not scores:"),
    Mutant("a budget of before a reload goes on", "budget.py", "[stage for stage, _ in charges] != list(budgets)", "False"),
    Mutant("the last budget says why", "budget.py", "ends.setdefault(row, refused)", "ends[row] = refused"),
    Mutant("the wait is told for a row that never passes", "budget.py", "or score == math.inf", ""),
    Mutant("what a budget refused is settled", "budget.py", "if -math.inf < score < self.refuse_from  # NaN is not", "if True"),
    Mutant("a row at the limit is settled", "budget.py", "if -math.inf < score < self.refuse_from  # NaN is not", "if -math.inf < score <= self.refuse_from"),
    Mutant("a row that was not charged is settled", "budget.py", "if -math.inf < score < self.refuse_from  # NaN is not", "if not score >= self.refuse_from"),
    Mutant("a budget that cannot settle raises", "budget.py", "if self._is_first_failure():\n                log.error(\"%s: rows keep", "raise\n            if True:\n                log.error(\"%s: rows keep"),
    Mutant("a request without admitted rows is settled", "budget.py", "if admitted:", "if True:"),
    Mutant("a row that was asked before is settled as a new one", "budget.py", "if one is None or not one.repeats]", "]"),
    Mutant("rows whose caller gave up are not settled", "budget.py", "ends = decisions if decisions is not None else [None] * len(batch.ids)", "ends = decisions or []"),
    Mutant("no budget is settled", "budget.py", "self.budget if isinstance(self.budget, SettledBudget) else None", "None"),
    Mutant("a pipeline settles nothing", "pipeline.py", "any(stage.settled is not None for stage in self.budgets)", "False"),
    Mutant("what a budget found is lost in a batch", "pipeline.py", "self.join(self.rows, stage.assessment(scores), stage.reason)", "pass"),
    Mutant("observed guards are enforced", "pipeline.py", "if found.all_allowed or not found.enforced:", "if found.all_allowed:"),
    Mutant("observed checks are enforced", "pipeline.py", "if found.enforced and not found.all_allowed:", "if not found.all_allowed:"),
    Mutant("a degraded row may have rung 0", "transitions.py", "Verdict.DEGRADE if depth else Verdict.ALLOW", "Verdict.DEGRADE"),
    Mutant("a deferred row may have a rung", "transitions.py", "Verdict.DEGRADE if depth else Verdict.ALLOW", "Verdict.DEFER if depth else Verdict.ALLOW"),
    Mutant("the last guard's verdict counts", "pipeline.py", "found.verdicts > self.verdicts[rows]", "found.verdicts != self.verdicts[rows]"),
    Mutant("a full queue still takes the row", "transitions.py", "reason) if stored else Refused", "reason) if True else Refused"),
    Mutant("the queue may return any length", "pipeline.py", "if len(stored) != len(cases):", "if not stored:"),
    Mutant("checks are ignored", "pipeline.py", "passing = passing[found.verdicts == Verdict.ALLOW]", "pass"),
    Mutant("a failed model answered", "pipeline.py", "if answer.all_ok else np.flatnonzero(answer.ok)", "if True else np.flatnonzero(answer.ok)"),
    Mutant("a fallback counts as served", "transitions.py", "UNAVAILABLE) if depth else Served", "UNAVAILABLE) if False else Served"),
    Mutant("without review a judgement is an outage", "transitions.py", "return Refused(reason or Reason.UNAVAILABLE)", "return Refused(Reason.UNAVAILABLE)"),
    Mutant("a row past its deadline is decided", "pipeline.py", "if deadline_s <= now:", "if deadline_s <= 0:"),
    Mutant("a model's NaN is an answer", "rows.py", "not np.logical_and.reduce(np.isfinite(array), axis=None)", "False"),
    Mutant("a pass is not remembered", "batch.py", "if model in self._memo or model in self._started:", "if False:"),
    Mutant("a slice forgets its passes", "batch.py", "_memo={name: f.take(rows) for name, f in self._memo.items()}", "_memo={}"),
    Mutant("a part's budget is ignored", "deadline.py", "_timeout_at(min(start_s + budget_s, until_s)):", "_timeout_at(until_s):"),
    Mutant("a budget outlives the deadline", "deadline.py", "_timeout_at(min(start_s + budget_s, until_s)):", "_timeout_at(start_s + budget_s):"),
    Mutant("a waiting part has no timer", "deadline.py", "async with _timeout_at(min(start_s + budget_s, until_s)):", "if True:"),
    Mutant("a row that has ended is still open", "pipeline.py", "~self.ended[self.rows] & ", ""),
    Mutant("an outcome is not an objection", "pipeline.py", "        self.open -= 1\n        self.any_objection = True\n", "        self.open -= 1\n"),
    Mutant("cancellation of the task is a failure", "deadline.py", "if task is not None and task.cancelling():", "if False:"),
    Mutant("a part's own cancellation cancels the task", "deadline.py", "if task is not None and task.cancelling():", "if True:"),
    Mutant("a caller's deadline stops the model", "model.py", "return await asyncio.shield(part)", "return await part"),
    Mutant("a caller's deadline is ignored", "model.py", "async with asyncio.timeout_at(until_s):", "if True:"),
    Mutant("a shielded model has no budget", "model.py", "inputs, self.budget_s, math.inf, ModelFailed", "inputs, math.inf, math.inf, ModelFailed"),
    Mutant("a model may return any number of rows", "model.py", "array.shape[:1] != (n,)", "False"),
    Mutant("an observed memory changes answers", "pipeline.py", "for one in given if enforced else ():", "for one in given:"),
    Mutant("no memory changes an answer", "pipeline.py", "state.outcomes[state.rows.item(one.row)] = one.answer", "pass"),
    Mutant("an answer goes to another row", "pipeline.py", "state.outcomes[state.rows.item(one.row)] = one.answer", "state.outcomes[one.row] = one.answer"),
    Mutant("a memory is told of rows without an answer", "pipeline.py", "if isinstance(outcome := state.outcomes[row], (Served, Degraded))", "if (outcome := state.outcomes[row]) is not None"),
    Mutant("what a memory did is not written down", "pipeline.py", "state.trail += recall.trail(given, state.rows, enforced=enforced)", "pass"),
    Mutant("a row that the model cannot take goes down the rungs", "pipeline.py", "if answer.invalid is not None:", "if False:"),
    Mutant("a deferred row is not held to the first model", "pipeline.py", "state.live, state.rows = state.open_rows(Verdict.DEFER)", "state.live, state.rows = state.open_rows(Verdict.DEGRADE)"),
    Mutant("a row that the model cannot take is a model out of service", "pipeline.py", "Refused(Reason.INVALID)", "Refused(Reason.UNAVAILABLE)"),
    Mutant("a row in doubt is invalid without a proof", "model.py", "rejecting = InputRejected if unproven else (InputRejected, RowInDoubt)", "rejecting = (InputRejected, RowInDoubt)"),
    Mutant("a row in doubt is never invalid", "model.py", "rejecting = InputRejected if unproven else (InputRejected, RowInDoubt)", "rejecting = InputRejected"),
    Mutant("a row in doubt is not asked again", "model.py", "n if n > 1 or isinstance(failure, RowInDoubt) else 0", "n if n > 1 else 0"),
    Mutant("a row alone counts for all callers", "model.py", "principals[i : i + 1]", "principals"),
    Mutant("a call is on no caller's behalf", "model.py", "CALL_PRINCIPALS.set(principals)", "pass"),
    Mutant("a slice forgets its invalid rows", "model.py", "None if self.invalid is None or all_ok else self.invalid[rows]", "None"),
    Mutant("what a failed model means holds for invalid rows", "stage.py", "verdicts[answer.invalid] = ASSUMED_OF_INVALID", "pass"),
    Mutant("one caller opens the circuit", "breaker.py", "if self._known_rows is None or not callers:", "if True:", FALLBACKS),
    Mutant("only the last caller counts", "breaker.py", "set(callers) & set(self._in_every_failure)", "set(callers)", FALLBACKS),
    Mutant("a row in doubt is a failure", "breaker.py", "BreakerEvent.FAILURE if no_row_at_fault else BreakerEvent.INCONCLUSIVE", "BreakerEvent.FAILURE", FALLBACKS),
    Mutant("a known row that raises says nothing", "breaker.py", "BreakerEvent.FAILURE if no_row_at_fault else BreakerEvent.INCONCLUSIVE", "BreakerEvent.INCONCLUSIVE", FALLBACKS),
    Mutant("a caller's row decides the probe", "breaker.py", "elif bad and callers and", "elif False and", FALLBACKS),
    Mutant("waiting behind others is a failure", "breaker.py", "except QueuedTooLong:\n            self._settle(epoch, BreakerEvent.INCONCLUSIVE)", "except QueuedTooLong:\n            self._settle(epoch, BreakerEvent.FAILURE, callers)", FALLBACKS),
    Mutant("a wrong answer to known rows says nothing", "breaker.py", "            self._settle(epoch, BreakerEvent.WRONG)", "            pass", FALLBACKS),
    Mutant("a model that answers wrongly is probed by a caller's row", "breaker.py", "if self._distrusted and not self._is_known(inputs):", "if False:", FALLBACKS),
    Mutant("a model that answers rightly again stays distrusted", "breaker.py", "self._distrusted = not self._known_rows.are_answered_by(outputs)", "self._distrusted |= not self._known_rows.are_answered_by(outputs)", FALLBACKS),
    Mutant("only failures in a row count", "breaker.py", "if excess is Excess.NONE and not in_a_row:", "if not in_a_row:", FALLBACKS),
    Mutant("an excess of one caller opens the circuit", "breaker.py", "if excess is Excess.OF_ALL or (in_a_row", "if excess is not Excess.NONE or (in_a_row", FALLBACKS),
    Mutant("an excess of all callers is asked about", "breaker.py", "if excess is Excess.OF_ALL or (in_a_row", "if (in_a_row", FALLBACKS),
    Mutant("known rows that fail decide nothing", "breaker.py", "if self._known_rows is None or not callers:", "if self._known_rows is None:", FALLBACKS),
    Mutant("known rows dilute the window", "breaker.py", "        if callers:  # known", "        if True:  # known", FALLBACKS),
    Mutant("an answer is never slow", "breaker.py", "- WAITED_S.get() > self._slow_s", "- WAITED_S.get() > 1e9", FALLBACKS),
    Mutant("waiting behind others is slow", "breaker.py", " - WAITED_S.get()", "", FALLBACKS),
    Mutant("a wait is counted for the next call too", "breaker.py", "        WAITED_S.set(0.0)\n", "", FALLBACKS),
    Mutant("a slow probe closes the circuit", "breaker.py", "(BreakerState.HALF_OPEN, BreakerEvent.SLOW): BreakerState.OPEN", "(BreakerState.HALF_OPEN, BreakerEvent.SLOW): BreakerState.CLOSED", FALLBACKS),
    Mutant("the window outlives a change of state", "breaker.py", "        self._window.clear()\n", "", FALLBACKS),
    Mutant("known rows are asked at every call", "breaker.py", "(in_a_row or self._window.asks_known_rows())", "True", FALLBACKS),
    Mutant("answers are never stuck", "breaker.py", "self._stuck.alarms(inputs, outputs)", "False", FALLBACKS),
    Mutant("an answer that looks stuck leaves", "breaker.py", "await self._require_proof()", "self._start_proof()", FALLBACKS),
    Mutant("known rows that cannot be asked prove an answer", "breaker.py", "            raise WrongAnswer(\n                \"it answers different", "            return\n            raise WrongAnswer(\n                \"it answers different", FALLBACKS),
    Mutant("calls never leave the window by age", "failure_window.py", " or calls[0][0] <= before_s", "", FALLBACKS),
    Mutant("the window grows without end", "failure_window.py", "len(calls) > self._most_calls or ", "", FALLBACKS),
    Mutant("a call that left is still counted", "failure_window.py", "self._count(left, of, -1)", "pass", FALLBACKS),
    Mutant("few calls are judged", "failure_window.py", "if n < least or self.count < self.share * n:", "if self.count < self.share * n:", FALLBACKS),
    Mutant("few calls without one caller are judged", "failure_window.py", "n - most >= least and", "", FALLBACKS),
    Mutant("one caller is not left out of all calls", "failure_window.py", "self.share * (n - most)", "self.share * n", FALLBACKS),
    Mutant("slow answers are no late calls", "failure_window.py", "        self._late.add(callers, step)\n        if end is CallEnd.FAILED:", "        if end is CallEnd.FAILED:\n            self._late.add(callers, step)", FALLBACKS),
    Mutant("a job that nothing waits for begins", "worker.py", "if not call.still_waited_for():", "if False:", FALLBACKS),
    Mutant("a pass is waited for for ever", "model.py", "            waits = False", "            pass"),
    Mutant("the next pass is told of the last one's end", "model.py", "context.run(self.still_waited_for.set, lambda: waits)", "self.still_waited_for.set(lambda: waits)"),
    Mutant("judgements are repeated", "retry.py", "self._repeatable(error) and in_time", "in_time", FALLBACKS),
    Mutant("a retry begins after the deadline", "retry.py", "self._repeatable(error) and in_time", "self._repeatable(error)", FALLBACKS),
    Mutant("retries have no budget", "retry.py", " and self._budget.take()", "", FALLBACKS),
    Mutant("pauses do not grow", "retry.py", "longest_s *= 2", "pass", FALLBACKS),
    Mutant("repeats are free", "retry_budget.py", "self._paid_calls -= CALLS_PER_REPEAT", "pass", FALLBACKS),
    Mutant("repeats are saved without end", "retry_budget.py", "min(self._paid_calls + 1, MOST_SAVED * CALLS_PER_REPEAT)", "self._paid_calls + 1", FALLBACKS),
    Mutant("hedges have no budget", "hedge.py", "if not done and self._budget.take():", "if not done:", FALLBACKS),
    Mutant("every call is hedged", "hedge.py", "if not done and self._budget.take():", "if self._budget.take():", FALLBACKS),
    Mutant("the call that lost goes on", "hedge.py", "                call.cancel()\n", "", FALLBACKS),
    Mutant("a judgement is outvoted", "hedge.py", "if not self._repeatable(error):", "if False:", FALLBACKS),
    Mutant("one outage of two ends both", "hedge.py", "if not self._repeatable(error):", "if True:", FALLBACKS),
    Mutant("the oldest latency stays", "recent_latencies.py", "if len(self._recent) > CALLS:", "if False:", FALLBACKS),
    Mutant("a row that is sent again is a repeat", "stuck.py", "differ.astype(np.int64)", "1", FALLBACKS),
    Mutant("repeats are added up for ever", "stuck.py", "above_lowest = walk - np.minimum.accumulate(np.minimum(walk, -self._repeats))", "above_lowest = walk + self._repeats", FALLBACKS),
    Mutant("other answers take nothing back", "stuck.py", "self._repeats = max(0, self._repeats - n)", "pass", FALLBACKS),
    Mutant("a batch begins anew", "stuck.py", "np.minimum(walk, -self._repeats)", "np.minimum(walk, 0)", FALLBACKS),
    Mutant("one output that is alike is enough", "stuck.py", "alike[1:] &= _rows_alike(array)\n    return alike", "alike[1:] = _rows_alike(array)\n    return alike", FALLBACKS),
    Mutant("alarms do not become rarer", "stuck.py", "self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)", "pass", FALLBACKS),
    Mutant("alarms become ever rarer", "stuck.py", "min(2 * self._pause_s, LAST_PAUSE_S)", "2 * self._pause_s", FALLBACKS),
    Mutant("any known answer will do", "known_rows.py", "return bool(np.allclose(one, known, rtol=RTOL, atol=ATOL))", "return True", FALLBACKS),
    Mutant("an impossible answer is an answer", "model.py", "ok & self.possible(outputs)", "ok"),
    Mutant("outputs may be of any type", "model.py", "if outputs[name].dtype != dtype:", "if False:"),
    Mutant("a part that holds the loop is in time", "deadline.py", "if own_s > budget_s or elapsed_s > budget_s + TOLERANCE_S:", "if elapsed_s > budget_s + TOLERANCE_S:"),
    Mutant("a part that blocks is in time", "deadline.py", "if own_s > budget_s or elapsed_s > budget_s + TOLERANCE_S:", "if own_s > budget_s:"),
    Mutant("an answer that is there is lost where the event loop was late", "deadline.py", "if loop.time() - self._until_s > LOOP_LATE_S:", "if False:"),
    Mutant("an answer after its budget is taken where the event loop was on time", "deadline.py", "if loop.time() - self._until_s > LOOP_LATE_S:", "if True:"),
    Mutant("an answer may leave after its deadline", "batching.py", "if loop.time() <= batch.until_s:", "if True:"),
    Mutant("a row of a caller who was refused stays in review", "batching.py", "                self._withdraw_deferred(own)", "                pass"),
    Mutant("a proof has a caller's deadline", "breaker.py", ", context=contextvars.Context()", "", FALLBACKS),
    Mutant("a proof ends with the caller that waits for it", "breaker.py", "await asyncio.shield(self._start_proof())", "await self._start_proof()", FALLBACKS),
    Mutant("a degraded row counts for no rung", "paths.py", "Verdict.DEGRADE if depth else Verdict.ALLOW", "Verdict.ALLOW", CERTIFICATION),
    Mutant("an unchecked rung answers nothing", "paths.py", "first = np.zeros(len(allowed), np.int64)", "first = np.full(len(allowed), len(grid))", CERTIFICATION),
    Mutant("a fallback is certified on what the full guards allow", "paths.py", "self.without_primary <= Verdict.DEGRADE", "self.verdicts <= Verdict.DEGRADE", CERTIFICATION),
    Mutant("observed guards stop rows", "alarms.py", "if guard.enforce and guard.name in scores:", "if guard.name in scores:", CERTIFICATION),
    Mutant("a share widens the budget", "alarms.py", "risk + math.log(share_of.get(name, 1.0))", "risk - math.log(share_of.get(name, 1.0))", CERTIFICATION),
    Mutant("slices spend delta each", "alarms.py", "policy.delta / (len(named) + 1)", "1 - 1e-9", CERTIFICATION),
    Mutant("a combination need not hold for its rungs", "ladder.py", "allowed = passed[reduce(np.logical_and.outer, own).ravel()[passed]]", "allowed = passed", CERTIFICATION),
    Mutant("combinations need not pass", "ladder.py", "passed = order[: passing(answered, errors, r, delta)]", "passed = order", CERTIFICATION),
    Mutant("a refused rung is certified", "ladder.py", "raise RungRefused(depth, found.surest, len(test.verdicts))", "return replace(found, certified=found.tried)", CERTIFICATION),
    Mutant("a sequence goes on after a failure", "selective.py", "return int(failed[0]) if failed.size else len(accepted)", "return len(accepted)", GUARDS),
    Mutant("test rows choose the candidates", "selective.py", "cuts = candidate_cuts(pilot.suspicion)", "cuts = candidate_cuts(test.suspicion)", GUARDS),
    Mutant("one error more is certified", "selective.py", 'delta, "right")) - 1', 'delta, "right"))', GUARDS),
    Mutant("one row more may be stopped", "order_statistic.py", 'delta, "right"))', 'delta, "right")) + 1', GUARDS),
    Mutant("cuts lie on their row", "atoms.py", "return max(top + min(", "return max(top - min(", GUARDS),
    Mutant("lower priorities fill the limit as well", "row_limit.py", "limit = self._shares[priority - 1 if priority < LOWEST else LOWEST - 1]", "limit = self.rows"),
    Mutant("rows of lower priorities take room", "row_limit.py", "else sum(self._by_priority[:priority])", "else sum(self._by_priority)"),
    Mutant("a full limit is full for every caller", "row_limit.py", "own + rows <= limit / (len(self._by_caller) + (not own))", "False"),
    Mutant("what is late anyway is taken", "row_limit.py", "if ahead * self._row_s > left_s or self._answer_s > left_s:", "if False:"),
    Mutant("waiting does not shrink the limit", "row_limit.py", "gradient = max(0.5, (tolerated_s + deciding_s) / answer_s)", "pass"),
    Mutant("rows of the deadline's half are not counted", "row_limit.py", "int(min(self._limit, in_time))", "int(self._limit)"),
    Mutant("every refusal may come back at once", "row_limit.py", "max(self.time_s(self._refused_rows), LEAST_RETRY_S)", "LEAST_RETRY_S"),
    Mutant("callers are served one after another", "fair_queue.py", "callers[caller] = items", "self._turn[0][caller] = items; callers.update({k: callers.pop(k) for k in list(callers) if k != caller})"),
    Mutant("passes may take all of their budget", "batch_size.py", "if seen.share > MOST_SHARE and not constant:", "if False:"),
    Mutant("a constant model gets fewer rows", "batch_size.py", "and not constant:", "and True:"),
    Mutant("two lanes whatever a pass takes", "batch_size.py", "if share > MOST_SHARE and self.lanes == MOST_LANES:", "if False:"),
    Mutant("a size that was too large is not tried again soon", "batch_size.py", "return RETRY_S", "return FORGET_S"),
    Mutant("a size that stays too large is tried as often", "batch_size.py", "min(2 * before.valid_s, FORGET_S)", "RETRY_S"),
    Mutant("no overdue row is dropped before its pass", "batching.py", "if batch.until_s <= now:", "if False:"),
    Mutant("every unanswered row is deferred", "deferral_cap.py", "taken = min(rows, int(self._rows))", "taken = rows"),
    Mutant("rows without room wait for the first rung all the same", "brownout.py", "model = _NotAsked(", "model = Model("),
    Mutant("rows step down where a guard would then defer them", "brownout.py", "guard.without_features <= Verdict.DEGRADE", "True"),
    Mutant("rows step down while the fallback's circuit is open", "brownout.py", "self._spare_time.any() and self._fallback_answers()", "self._spare_time.any()"),
    Mutant("a busy event loop has time to spare", "brownout.py", "share < (BUSY_FROM if self._any else BUSY_UNTIL)", "True"),
    Mutant("what an event loop has to spare has no hysteresis", "brownout.py", "(BUSY_FROM if self._any else BUSY_UNTIL)", "BUSY_UNTIL"),
    Mutant("reviewers get what there was no room for", "brownout.py", ", cap=DeferralCap(0.0, 0.0)", ""),
    Mutant("any number of rows steps down", "brownout.py", "and self.below.has_room(caller, rows, left_s, priority)", "and True"),
)  # fmt: skip

CONTROLS = [Mutant("nothing is broken", "__init__.py", "", "", folder) for folder in SUITES]


def require_applicable(mutant: Mutant) -> None:
    if mutant.old not in (ROOT / mutant.folder / mutant.file).read_text():
        raise SystemExit(
            f"{mutant.file}: mutant {mutant.description!r} no longer applies: {mutant.old!r} is gone"
        )


def copy_tree(tree: Path) -> Path:
    for part in ("gateway", "guards", "fallbacks", "tests", "configs"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "var"))
    shutil.copy(ROOT / "pyproject.toml", tree / "pyproject.toml")
    return tree


def run_tests(mutant: Mutant, tree: Path) -> End:
    """How its tests end with this tree as it is, up to the first failure."""
    env = os.environ | {
        "HYPOTHESIS_PROFILE": "quick",
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests()]
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return "hung"
    if done.returncode not in (0, 1):
        raise SystemExit(
            f"{mutant.description!r}: pytest ended with {done.returncode}:\n{done.stdout.decode()[-2000:]}"
        )
    return "failed" if done.returncode else "passed"


def break_and_run(mutant: Mutant, tree: Path) -> End:
    path = tree / mutant.folder / mutant.file
    source = path.read_text()
    path.write_text(source.replace(mutant.old, mutant.new, 1))
    try:
        return run_tests(mutant, tree)
    finally:
        path.write_text(source)


def end_of(mutant: Mutant, trees: SimpleQueue[Path]) -> End:
    """How its tests end, in a tree that no other mutant is in."""
    tree = trees.get()
    try:
        end = break_and_run(mutant, tree)
        if end == "hung" and run_tests(mutant, tree) != "passed":
            raise SystemExit(f"{mutant.description!r}: its tests hang, but do not pass with nothing broken")
        return end
    finally:
        trees.put(tree)


def main() -> int:
    for mutant in MUTANTS:
        require_applicable(mutant)
    alive: list[str] = []
    at_a_time = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_a_time) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(at_a_time):
            trees.put(copy_tree(Path(folder) / str(number)))
        ends_of = partial(pool.map, partial(end_of, trees=trees))
        for control, end in zip(CONTROLS, ends_of(CONTROLS), strict=True):
            if end != "passed":
                raise SystemExit(f"{control.folder}: its tests {end} although nothing is broken")
        for mutant, end in zip(MUTANTS, ends_of(MUTANTS), strict=True):
            line = f"{SHOWN[end]:13}  {mutant.file:18} {mutant.description}"
            print(line, flush=True)  # noqa: T201
            alive += [line] * (end == "passed")
    print(f"{len(MUTANTS) - len(alive)} of {len(MUTANTS)} mutants killed", *alive, sep="\n")  # noqa: T201
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
