"""What a policy demands of an answer, and whether a record of one row meets it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.core.decision import VERDICT_NAMES, Verdict
from gateway.policy.fields import VERDICT_OF
from gateway.policy.schema import Policy

ANSWERED: Final = ("served", "degraded")
Record = Mapping[str, Any]
"""A line of the audit log about one row."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy demands. guards: the least verdict of each enforced one that fails; checks: by rung."""

    deadline_s: float
    primary: str
    guards: Mapping[str, Verdict]
    checks: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, policy: Policy) -> Rules:
        return cls(
            policy.deadline_s,
            policy.rungs[0].name,
            {one.name: VERDICT_OF[one.on_error] for one in policy.guards if one.enforce},
            {rung.name: [one.name for one in rung.checks if one.enforce] for rung in policy.rungs},
        )


def unguarded(record: Record, rules: Rules) -> Iterator[str]:
    """What an answered row lacks."""
    if record["outcome"] not in ANSWERED:
        return
    served, by = record["outcome"] == "served", record["by"]
    if served != (by == rules.primary):
        yield f"{record['outcome']} by {by}"
    found = {finding["stage"]: finding for finding in record["findings"]}
    most = Verdict.ALLOW if served else Verdict.DEGRADE
    for guard, least in rules.guards.items():
        verdict = _verdict(found.get(guard))
        if verdict is None or verdict > most:
            yield f"{record['outcome']} past {guard}"
        elif "error" in found[guard] and verdict < least:
            yield f"{guard} failed, and its row went on"
    for stage in (by, *rules.checks.get(by, ())):
        if _verdict(found.get(stage)) is not Verdict.ALLOW:
            yield f"{record['outcome']} past {stage}"


def _verdict(finding: Record | None) -> Verdict | None:
    return None if finding is None else Verdict(VERDICT_NAMES.index(finding["verdict"]))
