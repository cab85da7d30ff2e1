"""Which policy an operator expects to be in force, as Ray Serve's `user_config` says it.

    user_config: {generation: 3, policy: e9c23316f9da}                  # of the only deployment
    user_config: {generation: 3, policy: {letters: e9c23316f9da}}       # by name, of several

A replica that has another policy in force after the reload says so: in its log, on `/status` and in a metric.
It still serves: the policy in force is one that was checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.serving.repository import Repository


def is_expected(tag: str, expected: str) -> bool:
    """Whether a policy in force is the one that is expected: by its tag, or the hash in it."""
    return expected in (tag, tag.rpartition("#")[2])


def expect(repository: Repository, user_config: Mapping[str, Any]) -> list[str]:
    """Puts down what is expected of each deployment; where that is not in force, one sentence each."""
    stated = user_config.get("policy")
    names = list(repository.entries)
    by_name = {names[0]: stated} if isinstance(stated, str) and len(names) == 1 else stated or {}
    for gateway in repository.gateways.values():
        gateway.expected = ""
    if not isinstance(by_name, Mapping) or not all(isinstance(one, str) for one in by_name.values()):
        return ["policy must be a hash, or of several deployments a mapping of names to hashes"]
    return [what for name, one in by_name.items() if (what := _put(repository, name, one))]


def _put(repository: Repository, name: str, expected: str) -> str:
    if name not in repository.entries:
        return f"no deployment is called {name!r}: there are {', '.join(repository.entries)}"
    gateway = repository.gateways.get(name)
    if gateway is None:
        return f"{name} is not ready, and {expected} is expected"
    gateway.expected = expected
    tag = gateway.loaded.tag
    return "" if is_expected(tag, expected) else f"{tag} is in force, and {expected} is expected"
