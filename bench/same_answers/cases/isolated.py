"""Models taken out of service by the operator: fallbacks answer, then people, then the models again."""

from __future__ import annotations

from collections.abc import Iterator

from bench.same_answers.case import ADMIN, Case, Http
from bench.same_answers.cases import grpc_parts
from bench.same_answers.cases.http_infer import OUTPUT, mixed
from bench.same_answers.cases.http_parts import ADA, HTML, JSON, OPERATOR, json_infer, operate, status
from bench.same_answers.deployment import Deployment

ROWS = range(200, 212)
STEPS = (
    ("the first model is out", "/rungs/primary/isolate"),
    ("both models are out", "/rungs/small/isolate"),
    ("the first model is back", "/rungs/primary/restore"),
    ("both models are back", "/rungs/small/restore"),
)


def cases(of: Deployment) -> Iterator[Case]:
    """The same rows at each step, by both protocols."""
    for step, target in STEPS:
        yield Http(f"isolated: {step}", (operate("POST", target),), ADMIN)
        for accept in (JSON, HTML):
            yield status(f"isolated: {step}, {accept}", OPERATOR, accept)
        for i in ROWS:
            rows = of.samples[i : i + 1]
            yield Http(f"isolated: {step}, sample {i}", (json_infer(of, rows, ADA),))
            yield grpc_parts.infer(f"isolated: {step}, sample {i}", grpc_parts.message(of, rows))
        outputs = [{"name": OUTPUT}, {"name": "fs_row_outcome"}]
        yield Http(f"isolated: {step}, mixed", (json_infer(of, mixed(of), ADA, outputs=outputs),))
        yield Http(f"isolated: {step}, four rows", (json_infer(of, of.samples[:4], ADA),))
