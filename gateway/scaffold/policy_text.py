"""A draft as the commented text of `gateway.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import yaml

from fallbacks.roles import VALUE
from gateway.scaffold.draft import INTERVAL_ERROR, Draft, DraftInput, DraftModel

COMMENT_AT = 34
TASKS = {
    "classification": "a class: probabilities, logits or label",
    "regression": "a number: value, with lower and upper from calibration",
    "opaque": "any tensors, of which errors cannot be counted",
}
GUARD_BUDGET_S, CHECK_BUDGET_S, RATE_BUDGET_S, REVIEW_BUDGET_S = 0.05, 0.01, 0.002, 0.25


def policy_text(draft: Draft) -> str:
    """The whole file."""
    return "\n".join([*_head(draft), *_inputs(draft), *_guards(draft), *_rungs(draft), *_tail(draft)]) + "\n"


def deadline_s(draft: Draft) -> float:
    """Seconds for a request: every budget, one after the other, and a tenth more."""
    guards = RATE_BUDGET_S + GUARD_BUDGET_S + (draft.models[0].budget_s if draft.squeezes else 0.0)
    models = sum(one.budget_s + CHECK_BUDGET_S * draft.checked(one) for one in draft.models)
    return round(max(0.5, 1.1 * (guards + models + REVIEW_BUDGET_S)), 2)


def _head(draft: Draft) -> Iterator[str]:
    yield "# Written by `gateway init`. docs/policy.md explains every field; `gateway check` reads it."
    yield from (f"# {note}" for note in draft.notes)
    yield "schema: 1"
    yield f"name: {draft.name}"
    yield _line(f"task: {draft.task}", TASKS[draft.task])
    yield _line(f"deadline_s: {deadline_s(draft):g}", "from a request's arrival to its answer")
    budget = f"false_alarm_budget: {draft.false_alarm_budget:g}"
    yield _line(budget, "of good rows that all guards together may stop")
    if draft.task == "classification":
        measured = "" if draft.measured_error is None else f"; of your rows {draft.measured_error:.1%} are"
        yield _line(f"answered_error: {_answered(draft):g}", f"of all answers that may be wrong{measured}")
    if draft.task == "regression":
        error = f"answered_error: {_answered(draft):g}"
        yield _line(error, "of all answers whose interval may miss the truth")
        if draft.mean_error is not None:
            mean, clip = draft.mean_error
            error = f"absolute_error: {{mean: {mean:g}, clip: {clip:g}}}"
            yield _line(error, "of all answers on average, in the unit of value")
    if draft.labels:
        yield _line(f"labels: {_flow(list(draft.labels))}", "in the order of the columns of probabilities")
    yield ""


def _line(text: str, comment: str) -> str:
    """A line of the policy with a comment in the column of the others."""
    return f"{text:<{COMMENT_AT}}  # {comment}"


def _answered(draft: Draft) -> float:
    return max(_error(draft, one) for one in draft.models)


def _error(draft: Draft, one: DraftModel) -> float:
    return INTERVAL_ERROR if draft.task == "regression" else one.error


def _inputs(draft: Draft) -> Iterator[str]:
    said = {one.spec.name: fields for one in draft.inputs if (fields := _input_fields(one))}
    if said:
        yield "inputs:"
        yield from (f"  {_flow(name)}: {_flow(fields)}" for name, fields in said.items())
        yield ""


def _input_fields(one: DraftInput) -> dict[str, object]:
    fields: dict[str, object] = {}
    if one.low is not None and one.high is not None:
        fields |= {"low": one.low, "high": one.high}
    if one.shape is not None:
        fields["shape"] = list(one.shape)
    if one.missing:
        fields["missing"] = "allow"
    return fields


def _guards(draft: Draft) -> Iterator[str]:
    yield _line("guards:", "judge the request; the most severe verdict counts")
    rate = {"name": "rate", "kind": "rate", "per_s": 200, "burst": 400, "budget_s": RATE_BUDGET_S}
    yield f"  - {_flow(rate | {'on_error': 'allow'})}"
    if draft.detectors:
        yield _line("  - name: ood", "unlike the rows that the model was calibrated on?")
        yield "    kind: ood"
        yield f"    detectors: {_flow(draft.detectors)}"
        yield "    cuts: {defer: certified}"
        yield f"    budget_s: {GUARD_BUDGET_S:g}"
        yield "    on_error: defer"
    else:
        yield "  # no guard of kind ood: no detector can read an input or output of this model"
    if draft.squeezes:
        yield _line("  - name: perturbation", "does the answer change when the picture is simplified?")
        yield "    kind: squeeze"
        yield "    cuts: {defer: certified}"
        yield "    share: 0.1"
        yield f"    budget_s: {draft.models[0].budget_s:g}"
        yield "    on_error: degrade"
    yield ""


def _rungs(draft: Draft) -> Iterator[str]:
    yield _line("rungs:", "models, asked in this order; the first is the primary")
    for one in draft.models:
        yield f"  - name: {one.name}"
        yield f"    model: {_flow(_model(one))}"
        budget = f"    budget_s: {one.budget_s:g}"
        fixed = "its file fixes the batch: rows are run one after the other"
        yield _line(budget, fixed) if one.row_by_row else budget
        if draft.checked(one):
            yield f"    checks: [{_flow(_check(draft, one))}]"
    yield ""


def _model(one: DraftModel) -> dict[str, object]:
    names = {role: name for role, name in one.names.items() if role != name}
    if one.url:
        found: dict[str, object] = {"kind": "oip", "url": one.url, "model": one.server_model}
    else:
        found = {"kind": "onnx", "path": one.path}
    return found | ({"names": names} if names else {})


def _check(draft: Draft, one: DraftModel) -> Mapping[str, object]:
    regression = VALUE in one.outputs and draft.task == "regression"
    kind, name = ("interval", "width") if regression else ("confidence", "confidence")
    own = name if one is draft.models[0] else f"{one.name}_{name}"
    return {
        "name": own,
        "kind": kind,
        "selective_error": _error(draft, one),
        "budget_s": CHECK_BUDGET_S,
        "on_error": "degrade",
    }


def _tail(draft: Draft) -> Iterator[str]:
    yield "# rows that no model may answer wait here for a reviewer: http://127.0.0.1:8082/review"
    yield (
        'review: {store: "sqlite:///var/review.db", capacity: 10000, expire_after_s: 86400, '
        f"budget_s: {REVIEW_BUDGET_S:g}}}"
    )
    yield _line(f"expose: {_flow(list(draft.exposed))}", "the outputs that callers see")
    yield "disclosure: {anonymous: {rounded: 2}, trusted: full}"
    yield "serving: {anonymous: loopback, max_batch_rows: 32}"


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, width=100_000, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")
