"""One span a request with one child a stage, written after the fact with their true start and end.

A request that names a trace (`traceparent` of W3C Trace Context) is a part of it, and is not recorded where
the caller's span is not, unless `OTEL_TRACES_SAMPLER` says otherwise.
"""

from __future__ import annotations

from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.core.decision import Decision, Outcome, Served, severity
from gateway.core.record import RequestRecord

_PROPAGATOR = TraceContextTextMapPropagator()


def write_spans(tracer: Tracer, record: RequestRecord) -> None:
    """The spans of one finished request. Of a batch, the stages of its worst row are shown."""
    start_ns = int(record.received_s * 1e9)
    worst = max(record.decisions, key=lambda decision: severity(decision.outcome))
    outcome, by, reason = outcome_labels(worst.outcome)
    attributes = {
        "gateway.decision_id": record.id,
        "gateway.policy": record.policy,
        "gateway.outcome": outcome,
        "gateway.reason": reason,
        "gateway.served_by": by,
        "gateway.rows": str(len(record.decisions)),
    }
    caller = _PROPAGATOR.extract({"traceparent": record.trace}) if record.trace else None
    span = tracer.start_span("infer", caller, SpanKind.SERVER, attributes, start_time=start_ns)
    _write_stage_spans(tracer, span, worst, start_ns)
    span.end(start_ns + int(record.elapsed_s * 1e9))


def _write_stage_spans(tracer: Tracer, parent: Span, decision: Decision, start_ns: int) -> None:
    context = set_span_in_context(parent)
    for finding in decision.findings:
        end_ns = start_ns + int(finding.elapsed_s * 1e9)
        attributes: dict[str, str | bool] = {
            "gateway.verdict": finding.verdict.name.lower(),
            "gateway.enforced": finding.enforced,
            "gateway.form": finding.form,
        }
        if finding.error is not None:
            attributes["error.message"] = finding.error
        tracer.start_span(finding.stage, context, start_time=start_ns, attributes=attributes).end(end_ns)
        start_ns = end_ns


def outcome_labels(outcome: Outcome) -> tuple[str, str, str]:
    """(outcome, served_by, reason) of one row: the coarse names, of which there are few."""
    reason = "ok" if isinstance(outcome, Served) else outcome.reason.value
    return type(outcome).__name__.lower(), getattr(outcome, "by", ""), reason
