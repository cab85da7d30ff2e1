"""What deployments that are served together must agree on: the settings that belong to their process.

A process has one listener a protocol, one set of limits and one way to identify its callers, so these fields
of `serving:` have one value. The others (`max_batch_rows`, ...) belong to each model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from fallbacks.review.open_store import place_of
from fallbacks.review.store import StoreError
from gateway.core.errors import Problem
from gateway.deployment.deployment import Deployment
from gateway.policy.locate import Loc

SHARED_FIELDS = (
    "replicas",
    "max_connections",
    "max_connections_per_caller",
    "max_in_flight",
    "max_in_flight_per_caller",
    "base_path",
    "anonymous",
    "trusted_proxies",
    "tls",
)
"""The fields of `serving:` that a process has once."""


def disagreements(deployments: Sequence[Deployment]) -> Iterator[Problem]:
    """Where a deployment differs from the first one, at its own line, naming the other's."""
    first = deployments[0]
    for other in deployments[1:]:
        for field in SHARED_FIELDS:
            here, there = _value(other, field), _value(first, field)
            if here != there:
                place = first.problem(("serving", field), "")
                what = f"is {_shown(here)} here and {_shown(there)} in {place.file}:{place.line}"
                what += "; deployments that are served together share it"
                yield other.problem(("serving", field), f"{what}: give it one value in both")


def collisions(deployments: Sequence[Deployment]) -> Iterator[Problem]:
    """Names and review queues that several deployments have: all but the first, with the place of that."""
    first: dict[str, tuple[Deployment, Loc]] = {}
    for one in deployments:
        for what, at, value in _identities(one):
            known, where = first.setdefault(value, (one, at))
            if known is not one:
                place = known.problem(where, "")
                problem = f"{what} of {place.file}:{place.line} too"
                yield one.problem(at, f"{problem}; deployments that are served together need one each")


def _identities(deployment: Deployment) -> Iterator[tuple[str, Loc, str]]:
    """What no other deployment may have: what it is, its place in the policy, and its value."""
    policy = deployment.policy
    yield f"{policy.name!r} is the name", ("name",), policy.name
    if policy.review is not None:
        with suppress(StoreError):  # reported when it is opened
            place = place_of(policy.review.store, deployment.folder)
            yield f"{place} is the review queue", ("review", "store"), place


def _value(deployment: Deployment, field: str) -> Any:
    """A setting as it is compared: files by where they are."""
    serving = deployment.policy.serving
    if field == "tls":
        files = serving.tls
        return files and tuple(_resolved(deployment, path) for path in (files.certificate, files.key))
    return getattr(serving, field)


def _resolved(deployment: Deployment, path: str) -> str:
    return str((deployment.folder / path).resolve())


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return value[0]  # the certificate's file
    return "absent" if value is None else repr(value)
