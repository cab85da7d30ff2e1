"""What deployments that are served together must agree on: the settings that belong to their process.

A process has one listener a protocol, one set of limits and one way to identify its callers, so these fields
of `serving:` have one value. The others (`max_batch_rows`, ...) belong to each model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from fallbacks.review.open_store import place_of
from fallbacks.review.store import StoreError
from gateway.core.errors import PolicyError, Problem, Problems
from gateway.deployment.deployment import Deployment
from gateway.policy.locate import Loc
from gateway.policy.schema import Policy

SHARED_FIELDS = (
    "replicas",
    "max_connections",
    "max_connections_per_caller",
    "max_in_flight",
    "max_in_flight_per_caller",
    "drain_s",
    "controller_lease_s",
    "base_path",
    "anonymous",
    "trusted_proxies",
    "hosts",
    "cors",
    "person_header",
    "tls",
)
"""The fields of `serving:` that a process has once."""


def disagreements(deployments: Sequence[Deployment]) -> Iterator[Problem]:
    """Where a deployment differs from the first one, at its own line, naming the other's."""
    for first, other in product(deployments[:1], deployments[1:]):
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


def needs_restart(old: Policy, deployment: Deployment, alone: bool) -> Iterator[Problem]:
    """The changed fields that are read only when a replica starts, or that other deployments share."""
    new = deployment.policy
    stores = [policy.review and policy.review.store for policy in (old, new)]
    if stores[0] != stores[1]:
        yield deployment.problem(("review", "store"), "a change of the review store needs a restart")
    own = ("replicas", "trusted_proxies", "hosts", "cors", "person_header", "base_path")
    for field in own if alone else SHARED_FIELDS:
        if getattr(old.serving, field) != getattr(new.serving, field):
            what = f"a change of {field} needs a restart"
            if not alone:
                what += ": the deployments that are served together share it"
            yield deployment.problem(("serving", field), what)
    if old.serving.require_signature != new.serving.require_signature:
        what = "a change of require_signature needs a restart"
        yield deployment.problem(("serving", "require_signature"), what)
    if old.name != new.name:
        yield deployment.problem(("name",), "a change of the name needs a restart")


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


def settings_of(folders: Sequence[Path]) -> Deployment:
    """The deployment whose settings of the process are in force. Raises as `Repository.open` for policies."""
    return those_that_agree([read_deployment(folder) for folder in folders])[0]


def those_that_agree(read: Sequence[Deployment | tuple[Problem, ...]]) -> list[Deployment]:
    """Those that could be read. Raises PolicyError if there are none, or they cannot be served together."""
    deployments = [one for one in read if isinstance(one, Deployment)]
    unread = [problem for one in read if not isinstance(one, Deployment) for problem in one]
    problems = [*collisions(deployments), *disagreements(deployments)]
    if problems or not deployments:
        raise PolicyError([*problems, *unread])
    return deployments


def read_deployment(folder: Path) -> Deployment | tuple[Problem, ...]:
    """The deployment in a folder, or what is wrong with its policy."""
    try:
        return Deployment.read(folder)
    except Problems as error:
        return error.problems
