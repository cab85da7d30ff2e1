"""Models taken out of service by the operator: fallbacks answer, then reviewers, then the models again."""

from __future__ import annotations

from collections.abc import Iterator

from bench.same_answers.exchange import ADMIN, Exchange, HttpExchange
from bench.same_answers.exchanges import grpc_parts
from bench.same_answers.exchanges.http_infer import OUTPUT, mixed
from bench.same_answers.exchanges.http_parts import (
    ADA,
    HTML,
    JSON,
    OPERATOR,
    json_infer,
    operate,
    status_exchange,
)
from bench.same_answers.sampled_deployment import SampledDeployment

ROWS = range(200, 212)
STEPS = (
    ("the first model is out", "/rungs/primary/isolate"),
    ("both models are out", "/rungs/small/isolate"),
    ("the first model is back", "/rungs/primary/restore"),
    ("both models are back", "/rungs/small/restore"),
)


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """The same rows at each step, by both protocols."""
    for step, target in STEPS:
        yield HttpExchange(f"isolated: {step}", (operate("POST", target),), ADMIN)
        for accept in (JSON, HTML):
            yield status_exchange(f"isolated: {step}, {accept}", OPERATOR, accept)
        for i in ROWS:
            rows = deployment.samples[i : i + 1]
            yield HttpExchange(f"isolated: {step}, sample {i}", (json_infer(deployment, rows, ADA),))
            yield grpc_parts.infer_exchange(
                f"isolated: {step}, sample {i}", grpc_parts.message(deployment, rows)
            )
        outputs = [{"name": OUTPUT}, {"name": "fs_row_outcome"}]
        yield HttpExchange(
            f"isolated: {step}, mixed", (json_infer(deployment, mixed(deployment), ADA, outputs=outputs),)
        )
        yield HttpExchange(
            f"isolated: {step}, four rows", (json_infer(deployment, deployment.samples[:4], ADA),)
        )
