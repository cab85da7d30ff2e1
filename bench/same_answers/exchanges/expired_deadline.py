"""Requests whose deadline has passed when they arrive.

They are last: whether such a row is still scored, and counted, is a race; the answer to it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.same_answers.exchange import Exchange, HttpExchange
from bench.same_answers.exchanges import grpc_parts
from bench.same_answers.exchanges.http_parts import ADA, binary_infer, json_infer
from bench.same_answers.sampled_deployment import SampledDeployment

TIMEOUT = "X-Request-Timeout-Seconds"


def exchanges(deployment: SampledDeployment) -> Iterator[Exchange]:
    """By both protocols, in both forms, for one row and several."""
    soon: dict[str, Any] = {"timeout": 1}
    for count in (1, 8):
        rows = deployment.samples[:count]
        yield HttpExchange(f"late: {count} rows", (json_infer(deployment, rows, ADA, parameters=soon),))
        yield HttpExchange(
            f"late: {count} rows in binary", (binary_infer(deployment, rows, ADA, parameters=soon),)
        )
        yield HttpExchange(
            f"late: {count} rows by a header", (json_infer(deployment, rows, ADA, f"{TIMEOUT}: 0.000001"),)
        )
        for raw in (True, False):
            held = grpc_parts.with_options(grpc_parts.message(deployment, rows, raw=raw), **soon)
            yield grpc_parts.infer_exchange(f"late: {count} rows, {'raw' if raw else 'typed'}", held)
