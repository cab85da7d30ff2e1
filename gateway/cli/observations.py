"""What `gateway check` says of guards that are only observed for a while."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from gateway.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class Observation:
    """The `observe` of one guard. until: as it is shown; ended: whether the guard is enforced by now.

    certified: whether promises of the certificate depend on the guard.
    """

    guard: str
    until: str
    ended: bool
    certified: bool

    @property
    def sentence(self) -> str:
        """What it comes to, in one sentence."""
        if self.ended:
            return f"the guard {self.guard} was only observed until {self.until}; now it is enforced"
        promises = ", and no promise is in force meanwhile" if self.certified else ""
        return f"the guard {self.guard} stops nothing until {self.until}: it is only observed{promises}"

    @property
    def fields(self) -> dict[str, Any]:
        return {"guard": self.guard, "until": self.until, "enforced": self.ended}


def observations(policy: Policy, observed: Collection[str]) -> list[Observation]:
    """The guards that have `observe`, in the policy's order. observed: those that are not enforced now."""
    return [
        Observation(guard.name, guard.observe.text, guard.name not in observed, guard.certified)
        for guard in policy.guards
        if guard.observe is not None
    ]
