"""Fields whose change takes no new calibration and withdraws what the certificate promises.

A promise speaks of guards and checks that return a number in time. With a budget of a microsecond none does,
and `on_error` decides every row instead. So the certificate keeps the fields that a kind of certified guard
or check names in `unbound`, and the time that each model has. Whether a guard is observed now is not compared
with the certificate: a promise speaks of guards that act.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

from gateway.policy.kinds import CheckPolicy
from gateway.policy.kinds.kind import CertifiedGuardKind
from gateway.policy.schema import Policy

Conditions: TypeAlias = dict[str, float | str]
BUDGET, OBSERVE = "budget_s", "observe"


def conditions_of(policy: Policy) -> Conditions:
    """The values by field: seconds that may be more, and words that may not differ."""
    found: Conditions = {}
    for guard in policy.guards:
        if guard.certified:
            found |= _fields(f"guards.{guard.name}", guard)
    for rung in policy.rungs:
        found[f"rungs.{rung.name}.{BUDGET}"] = rung.budget_s
        for check in rung.checks:
            found |= _fields(f"rungs.{rung.name}.checks.{check.name}", check)
    return found


def withdrawn_by(policy: Policy, certified: Conditions, observed: Collection[str]) -> list[str]:
    """Why no promise is in force: the fields that are weaker than certified, one reason each.

    Args:    observed: the guards that are only observed now, because of their `observe`.
    """
    reasons = [] if policy.mode == "enforce" else [f"the policy's mode is {policy.mode}"]
    reasons += [
        f"the guard {guard.name} is only observed until {guard.observe.text}"
        for guard in policy.guards
        if guard.certified and guard.observe is not None and guard.name in observed
    ]
    now = conditions_of(policy)
    for field in sorted(now.keys() | certified.keys()):
        reason = _weaker(now.get(field), certified.get(field))
        reasons += [f"{field} {reason}"] if reason else []
    return reasons


def _fields(at: str, part: CertifiedGuardKind | CheckPolicy) -> Conditions:
    return {f"{at}.{name}": getattr(part, name) for name in sorted(part.unbound - {OBSERVE})}


def _weaker(now: float | str | None, certified: float | str | None) -> str:
    if now == certified:
        return ""
    if isinstance(now, float) and isinstance(certified, float):
        return f"is {now:g}, and {certified:g} was certified" if now < certified else ""
    return f"is {_word(now)}, and {_word(certified)} was certified"


def _word(value: float | str | None) -> str:
    return "nothing" if value is None else f"{value}"
