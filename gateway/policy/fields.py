"""Field types that several blocks of the policy share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.core.decision import Verdict

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
"""A name that is valid in URLs, metrics and the file of keys."""
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=60)]
"""A time limit in seconds."""
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
"""A share of all rows or answers."""
AnyVerdict: TypeAlias = Literal["allow", "degrade", "defer", "refuse"]
"""The verdicts of a guard on a request."""
CheckVerdict: TypeAlias = Literal["allow", "degrade"]
"""The verdicts of a check on an answer: return it, or call the next rung."""
CertifiedCuts: TypeAlias = Annotated[
    dict[Literal["degrade", "defer", "refuse"], Literal["certified"]], Field(min_length=1, max_length=1)
]
"""The one verdict that a guard gives to scores from the certified cut on."""
BudgetShare: TypeAlias = Annotated[float, Field(gt=0, le=1)]
"""The part of the false-alarm budget that a guard may use."""

VERDICT_OF: dict[str, Verdict] = {verdict.name.lower(): verdict for verdict in Verdict}
"""Verdicts by their name in a policy."""


class Strict(BaseModel):
    """Unknown fields are refused, nothing is converted (yes is no number), and values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def refuse_bool(value: Any) -> Any:
    """Refuses true as a number: in Python it equals 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("literal_error", "Input should be a number")
    return value


SchemaOne: TypeAlias = Annotated[Literal[1], BeforeValidator(refuse_bool), Field(alias="schema")]
