"""Every request that is sent, in the order in which it is sent: a literal, deterministic list."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.same_answers.case import Case
from bench.same_answers.cases import (
    administration,
    grpc_infer,
    grpc_malformed,
    grpc_methods,
    http_infer,
    http_malformed,
    http_raw,
    http_routes,
    isolated,
    late,
    people,
)
from bench.same_answers.deployment import Deployment

SECTIONS: tuple[Callable[[Deployment], Iterator[Case]], ...] = (
    people.cases,  # first: the order of cases that wait must not depend on rows of one request
    administration.cases,
    http_routes.cases,
    http_infer.cases,
    http_malformed.cases,
    http_raw.cases,
    grpc_methods.cases,
    grpc_infer.cases,
    grpc_malformed.cases,
    isolated.cases,
    administration.counts,
    late.cases,
)


def cases_of(deployment: Deployment) -> list[Case]:
    """All requests to one deployment. Raises ValueError if two have the same name."""
    cases = [case for section in SECTIONS for case in section(deployment)]
    names: set[str] = set()
    for case in cases:
        if case.name in names:
            raise ValueError(f"two requests are called {case.name!r}")
        names.add(case.name)
    return cases
