"""Breaks the core and the certificate on purpose, one line at a time, and requires that the suite notices.

    python tests/mutants.py [--keep-going]

Each mutant is one exact replacement in a copy of the tree; the laws and the decision table, or the tests of what
is certified, run against it and must fail. A mutant that no longer applies is an error, so this list cannot rot. Exit 0 if all die.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE, GUARDS, FALLBACKS = "gateway/core", "guards", "fallbacks"
CERTIFICATION = "gateway/deployment/certification"
SUITES = {
    CORE: [
        f"tests/core/test_{name}.py"
        for name in ("decision_table", "laws", "budget", "answers", "deadline", "batching")
    ],
    CERTIFICATION: [
        *(f"tests/deployment/certification/test_{name}.py" for name in ("paths", "alarms", "ladder")),
        "tests/calibration/test_rows_needed.py",
    ],
    FALLBACKS: ["tests/fallbacks/test_breaker.py"],
    GUARDS: [
        "tests/guards/test_order_statistic.py",
        "tests/guards/test_atoms.py",
        "tests/guards/test_selective.py",
    ],
}
"""What runs against a mutant of each folder."""


@dataclass(frozen=True)
class Mutant:
    description: str
    file: str
    old: str
    new: str
    folder: str = CORE


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
    Mutant("what a budget found is lost in a batch", "pipeline.py", "self.join(self.rows, stage.assessment(scores), stage.reason)", "pass"),
    Mutant("observed guards are enforced", "pipeline.py", "if found.all_allowed or not found.enforced:", "if found.all_allowed:"),
    Mutant("observed checks are enforced", "pipeline.py", "if found.enforced and not found.all_allowed:", "if not found.all_allowed:"),
    Mutant("a degraded row may have rung 0", "pipeline.py", "Verdict.DEGRADE if depth else Verdict.ALLOW", "Verdict.DEGRADE"),
    Mutant("a deferred row may have a rung", "pipeline.py", "Verdict.DEGRADE if depth else Verdict.ALLOW", "Verdict.DEFER if depth else Verdict.ALLOW"),
    Mutant("the last guard's verdict counts", "pipeline.py", "found.verdicts > self.verdicts[rows]", "found.verdicts != self.verdicts[rows]"),
    Mutant("a full queue still takes the row", "pipeline.py", "case.reason) if one else Refused", "case.reason) if True else Refused"),
    Mutant("the queue may return any length", "pipeline.py", "if len(stored) != len(cases):", "if not stored:"),
    Mutant("checks are ignored", "pipeline.py", "passing = passing[found.verdicts == Verdict.ALLOW]", "pass"),
    Mutant("a failed model answered", "pipeline.py", "if answer.all_ok else np.flatnonzero(answer.ok)", "if True else np.flatnonzero(answer.ok)"),
    Mutant("a fallback counts as served", "pipeline.py", "if depth:\n                state.end", "if False:\n                state.end"),
    Mutant("a row past its deadline is decided", "pipeline.py", "if deadline_s <= now:", "if deadline_s <= 0:"),
    Mutant("a model's NaN is an answer", "rows.py", "not np.logical_and.reduce(np.isfinite(array), axis=None)", "False"),
    Mutant("a pass is not remembered", "batch.py", "if model in self._memo or model in self._started:", "if False:"),
    Mutant("a slice forgets its passes", "batch.py", "_memo={name: f.take(rows) for name, f in self._memo.items()}", "_memo={}"),
    Mutant("a part's budget is ignored", "deadline.py", "asyncio.timeout_at(min(start_s + budget_s, until_s))", "asyncio.timeout_at(until_s)"),
    Mutant("a budget outlives the deadline", "deadline.py", "asyncio.timeout_at(min(start_s + budget_s, until_s))", "asyncio.timeout_at(start_s + budget_s)"),
    Mutant("a waiting part has no timer", "deadline.py", "async with asyncio.timeout_at(min(start_s + budget_s, until_s)):", "if True:"),
    Mutant("a row that has ended is still open", "pipeline.py", "~self.ended[self.rows] & ", ""),
    Mutant("an outcome is not an objection", "pipeline.py", "        self.any_objection = True\n", ""),
    Mutant("cancellation of the task is a failure", "deadline.py", "if task is not None and task.cancelling():", "if False:"),
    Mutant("a part's own cancellation cancels the task", "deadline.py", "if task is not None and task.cancelling():", "if True:"),
    Mutant("a caller's deadline stops the model", "model.py", "return await asyncio.shield(part)", "return await part"),
    Mutant("a caller's deadline is ignored", "model.py", "async with asyncio.timeout_at(until_s):", "if True:"),
    Mutant("a shielded model has no budget", "model.py", "inputs, self.budget_s, math.inf, ModelFailed", "inputs, math.inf, math.inf, ModelFailed"),
    Mutant("a model may return any number of rows", "model.py", "array.shape[:1] != (n,)", "False"),
    Mutant("a row that the model cannot take goes down the rungs", "pipeline.py", "if answer.invalid is not None:", "if False:"),
    Mutant("a deferred row is not held to the first model", "pipeline.py", "state.live, state.rows = state.open_rows(Verdict.DEFER)", "state.live, state.rows = state.open_rows(Verdict.DEGRADE)"),
    Mutant("a row that the model cannot take is a model out of service", "pipeline.py", "Refused(Reason.INVALID)", "Refused(Reason.UNAVAILABLE)"),
    Mutant("a row in doubt is invalid without a proof", "model.py", "rejecting = InputRejected if unproven else (InputRejected, RowInDoubt)", "rejecting = (InputRejected, RowInDoubt)"),
    Mutant("a row in doubt is never invalid", "model.py", "rejecting = InputRejected if unproven else (InputRejected, RowInDoubt)", "rejecting = InputRejected"),
    Mutant("a row in doubt is not asked again", "model.py", "n if n > 1 or isinstance(failure, RowInDoubt) else 0", "n if n > 1 else 0"),
    Mutant("a row alone counts for all callers", "model.py", "principals[i : i + 1]", "principals"),
    Mutant("a call is on no caller's behalf", "model.py", "CALL_PRINCIPALS.set(principals)", "pass"),
    Mutant("a slice forgets its invalid rows", "model.py", "None if self.invalid is None or all_ok else self.invalid[rows]", "None"),
    Mutant("what a failed model means holds for invalid rows", "stage.py", "verdicts[answer.invalid] = Verdict.ALLOW", "pass"),
    Mutant("one caller opens the circuit", "breaker.py", "if not in_all or self._known_rows is None:", "if True:", FALLBACKS),
    Mutant("only the last caller counts", "breaker.py", "set(callers) & set(self._in_every_failure)", "set(callers)", FALLBACKS),
    Mutant("a row in doubt is a failure", "breaker.py", "BreakerEvent.FAILURE if no_row_at_fault else BreakerEvent.INCONCLUSIVE", "BreakerEvent.FAILURE", FALLBACKS),
    Mutant("a known row that raises says nothing", "breaker.py", "BreakerEvent.FAILURE if no_row_at_fault else BreakerEvent.INCONCLUSIVE", "BreakerEvent.INCONCLUSIVE", FALLBACKS),
    Mutant("a caller's row decides the probe", "breaker.py", "elif event is BreakerEvent.FAILURE and callers and", "elif False and", FALLBACKS),
    Mutant("waiting behind others is a failure", "breaker.py", "except QueuedTooLong:\n            self._settle(epoch, BreakerEvent.INCONCLUSIVE)", "except QueuedTooLong:\n            self._settle(epoch, BreakerEvent.FAILURE, callers)", FALLBACKS),
    Mutant("a wrong answer to known rows says nothing", "breaker.py", "            self._settle(epoch, BreakerEvent.WRONG)", "            pass", FALLBACKS),
    Mutant("a model that answers wrongly is probed by a caller's row", "breaker.py", "if self._distrusted and not self._is_known(inputs):", "if False:", FALLBACKS),
    Mutant("a model that answers rightly again stays distrusted", "breaker.py", "self._distrusted = not self._known_rows.are_answered_by(outputs)", "self._distrusted |= not self._known_rows.are_answered_by(outputs)", FALLBACKS),
    Mutant("any known answer will do", "known_rows.py", "return bool(np.allclose(one, known, rtol=RTOL, atol=ATOL))", "return True", FALLBACKS),
    Mutant("an impossible answer is an answer", "model.py", "ok & self.possible(outputs)", "ok"),
    Mutant("outputs may be of any type", "model.py", "if outputs[name].dtype != dtype:", "if False:"),
    Mutant("a part that holds the loop is in time", "deadline.py", "if own_s > budget_s or elapsed_s > budget_s + TOLERANCE_S:", "if elapsed_s > budget_s + TOLERANCE_S:"),
    Mutant("a part that blocks is in time", "deadline.py", "if own_s > budget_s or elapsed_s > budget_s + TOLERANCE_S:", "if own_s > budget_s:"),
    Mutant("an answer may leave after its deadline", "batching.py", "if now_s() <= batch.until_s:", "if True:"),
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
)  # fmt: skip


def survives(mutant: Mutant, tree: Path) -> bool:
    """Whether the suite passes although a line is broken."""
    path = tree / mutant.folder / mutant.file
    source = (ROOT / mutant.folder / mutant.file).read_text()
    if mutant.old not in source:
        raise SystemExit(
            f"{mutant.file}: mutant {mutant.description!r} no longer applies: {mutant.old!r} is gone"
        )
    path.write_text(source.replace(mutant.old, mutant.new, 1))
    env = os.environ | {
        "HYPOTHESIS_PROFILE": "quick",
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *SUITES[mutant.folder]]
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=300, check=False)
    finally:
        path.write_text(source)
    if done.returncode not in (0, 1):
        raise SystemExit(
            f"{mutant.description!r}: pytest ended with {done.returncode}:\n{done.stdout.decode()[-2000:]}"
        )
    return done.returncode == 0


def main() -> int:
    alive: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for part in ("gateway", "guards", "fallbacks"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "configs", tree / "configs", ignore=shutil.ignore_patterns("var"))
        shutil.copy(ROOT / "pyproject.toml", tree / "pyproject.toml")
        for mutant in MUTANTS:
            lives = survives(mutant, tree)
            print(f"{'SURVIVED' if lives else 'killed  '}  {mutant.file:18} {mutant.description}", flush=True)  # noqa: T201
            alive += [mutant.description] * lives
    print(f"{len(MUTANTS) - len(alive)} of {len(MUTANTS)} mutants killed")  # noqa: T201
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
