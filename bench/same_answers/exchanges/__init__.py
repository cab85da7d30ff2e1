"""Every request that is sent, in the order in which it is sent: a literal, deterministic list."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.same_answers.exchange import Exchange
from bench.same_answers.exchanges import (
    administration,
    expired_deadline,
    grpc_infer,
    grpc_malformed,
    grpc_methods,
    http_infer,
    http_malformed,
    http_raw,
    http_routes,
    isolated,
    review,
)
from bench.same_answers.sampled_deployment import SampledDeployment

SECTIONS: tuple[Callable[[SampledDeployment], Iterator[Exchange]], ...] = (
    review.exchanges,  # first: the order of cases that wait must not depend on rows of one request
    administration.exchanges,
    http_routes.exchanges,
    http_infer.exchanges,
    http_malformed.exchanges,
    http_raw.exchanges,
    grpc_methods.exchanges,
    grpc_infer.exchanges,
    grpc_malformed.exchanges,
    isolated.exchanges,
    administration.final_counts,
    expired_deadline.exchanges,
)


def exchanges_of(deployment: SampledDeployment) -> list[Exchange]:
    """All requests to one deployment. Raises ValueError if two have the same name."""
    exchanges = [exchange for section in SECTIONS for exchange in section(deployment)]
    names: set[str] = set()
    for exchange in exchanges:
        if exchange.name in names:
            raise ValueError(f"two requests are called {exchange.name!r}")
        names.add(exchange.name)
    return exchanges
