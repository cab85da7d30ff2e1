"""Why a case was deferred, as its reviewer reads it: a sentence a cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.policy.schema import Policy


def brief_of(why: str) -> str:
    """The beginning of the row as one line, as stored with the case; empty for a row such as a picture."""
    return str(orjson.loads(why).get("brief", ""))


def deferral_reasons(why: str, policy: Policy) -> list[str]:
    """Why a case was deferred, a sentence a cause. why: as stored with the case."""
    checks = {check.name: (check, rung.name) for rung in policy.rungs for check in rung.checks}
    sentences: list[str] = []
    objections: dict[str, list[str]] = {}
    for one in orjson.loads(why).get("raised", []):
        if one["stage"] in checks and one.get("error") is None:
            check, rung = checks[one["stage"]]
            objections.setdefault(check.objection, []).append(f"“{rung}”")
        else:
            sentences.append(_sentence(one, policy))
    for objection, rungs in objections.items():
        models, are = ("models", "are") if len(rungs) > 1 else ("model", "is")
        sentences.append(f"the {models} {' and '.join(rungs)} {are} {objection}")
    return sentences or ["no model could answer it"]


def _sentence(raised: Mapping[str, Any], policy: Policy) -> str:
    """One guard's or rung's objection, or the failure of any stage."""
    stage, error = raised["stage"], raised.get("error")
    if any(stage == rung.name for rung in policy.rungs):
        return f"the model “{stage}” failed: {error}"
    if error is not None:
        return f"a guard failed: {error}"
    guard = next((guard for guard in policy.guards if guard.name == stage), None)
    if guard is None:
        return f"“{stage}” objected"
    return guard.reviewer_sentence(raised.get("form", "full"))
