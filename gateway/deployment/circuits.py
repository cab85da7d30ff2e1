"""How each rung's model is called: its circuit breaker, and within it the retries and hedges of upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from fallbacks.breaker import Breaker
from fallbacks.failure_window import WindowLimits
from fallbacks.hedge import Hedge
from fallbacks.known_rows import KnownRows
from fallbacks.oip.errors import may_repeat
from fallbacks.predictor import ModelTensor, Predictor
from fallbacks.retry import Retry
from fallbacks.retry_budget import RetryBudget
from fallbacks.stuck import StuckOutput
from gateway.core.deadline import CALL_PRINCIPALS, call_deadline
from gateway.deployment.artifacts import KNOWN_ROWS, Artifacts
from gateway.policy.schema import OipPolicy, RungPolicy

FAILURES_TO_OPEN: Final = 5
RESET_S: Final = 5.0


def breaker_of(rung: RungPolicy, artifacts: Artifacts, exposed: Sequence[str]) -> Breaker:
    """A breaker, closed, over the rung's model. exposed: the outputs that callers may see."""
    model = artifacts.models[rung.name]
    known_rows = _known_rows(rung, artifacts)
    repeats = RetryBudget()
    predictor = _repeating(rung, model, repeats)
    return Breaker(
        predictor,
        failures=FAILURES_TO_OPEN,
        reset_s=RESET_S,
        known_rows=known_rows,
        callers=CALL_PRINCIPALS.get,
        window=_window(rung),
        stuck=None if known_rows.answers is None else _stuck_output(model.outputs, exposed),
        repeats=None if predictor is model else repeats,
    )


def _repeating(rung: RungPolicy, model: Predictor, budget: RetryBudget) -> Predictor:
    """The model; one in another server with the retries and hedges that its policy allows."""
    if not isinstance(rung.model, OipPolicy) or not (rung.model.retries or rung.model.hedge):
        return model
    return Retry(
        Hedge(model, budget, repeatable=may_repeat) if rung.model.hedge else model,
        budget,
        retries=rung.model.retries,
        repeatable=may_repeat,
        call_deadline=partial(call_deadline, rung.budget_s),
    )


def _stuck_output(outputs: Sequence[ModelTensor], exposed: Sequence[str]) -> StuckOutput:
    """The test of what callers may see of a model's answers, as far as it is of floating point."""
    return StuckOutput([spec.name for spec in outputs if spec.name in exposed and spec.dtype.kind == "f"])


def _window(rung: RungPolicy) -> WindowLimits:
    circuit = rung.circuit
    return WindowLimits(
        calls=circuit.calls,
        window_s=circuit.window_s,
        least_calls=circuit.least_calls,
        failed_share=circuit.failed_share,
        late_share=circuit.late_share,
        slow_s=circuit.slow_share * rung.budget_s,
    )


def _known_rows(rung: RungPolicy, artifacts: Artifacts) -> KnownRows:
    """Rows that calibration kept: of a file with its answers, of an upstream, which has its own, without."""
    if (answers := artifacts.known_answers.get(rung.name)) is None:
        return KnownRows(artifacts.kept.first(1), rung.budget_s)
    return KnownRows(artifacts.kept.first(KNOWN_ROWS), rung.budget_s, answers)
