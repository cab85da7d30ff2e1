"""What the policy itself leaves open, in sentences: no hole, but what an operator should read."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.core.decision_graph import DecisionGraph, StepKind
from gateway.deployment.proof.fail_open import fail_open, failing_budgets
from gateway.policy.schema import Policy


def left_open(policy: Policy, graph: DecisionGraph) -> Iterator[str]:
    """Parts that are only observed, rungs without a check, and what fails open with or without a waiver."""
    judging = [step for step in graph.steps if step.kind in (StepKind.BUDGET, StepKind.GUARD, StepKind.CHECK)]
    if not any(step.kind is StepKind.GUARD for step in judging):
        yield "No guard judges a request."
    for step in judging:
        if not step.enforced:
            why = "mode: observe" if policy.mode == "observe" else "enforce: false"
            yield f"`{step.name}` is only observed ({why}): rows that it would stop pass unguarded."
    for rung in policy.rungs:
        if not rung.checks:
            yield f"`{rung.name}` answers without a check."
    for name in sorted(failing_budgets(graph)):
        because = f" ({policy.waivers[name]})" if name in policy.waivers else ""
        yield f"`{name}` lets rows pass where it fails{because}: the guards judge them."
    for name in fail_open(graph):
        if name in policy.waivers:
            yield f"`{name}` fails open, by a waiver: {policy.waivers[name]}"
