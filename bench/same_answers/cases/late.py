"""Requests whose deadline has passed when they come. They are last: whether such a row is still measured, and
counted, is a race, while the answer to it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.same_answers.case import Case, Http
from bench.same_answers.cases import grpc_parts
from bench.same_answers.cases.http_parts import ADA, binary_infer, json_infer
from bench.same_answers.deployment import Deployment

TIMEOUT = "X-Request-Timeout-Seconds"


def cases(of: Deployment) -> Iterator[Case]:
    """By both protocols, in both forms, for one row and several."""
    soon: dict[str, Any] = {"timeout": 1}
    for count in (1, 8):
        rows = of.samples[:count]
        yield Http(f"late: {count} rows", (json_infer(of, rows, ADA, parameters=soon),))
        yield Http(f"late: {count} rows in binary", (binary_infer(of, rows, ADA, parameters=soon),))
        yield Http(f"late: {count} rows by a header", (json_infer(of, rows, ADA, f"{TIMEOUT}: 0.000001"),))
        for raw in (True, False):
            held = grpc_parts.ask(grpc_parts.message(of, rows, raw=raw), **soon)
            yield grpc_parts.infer(f"late: {count} rows, {'raw' if raw else 'typed'}", held)
