"""Types of fields that several parts of the policy share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gateway.core.decision import Verdict

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
"""A name that can stand in a URL, a metric and a file of keys."""
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=60)]
"""How long a part may take."""
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
"""A part of all rows or answers."""
AnyVerdict: TypeAlias = Literal["allow", "degrade", "defer", "refuse"]
"""What a guard may say of a request."""
CheckVerdict: TypeAlias = Literal["allow", "degrade"]
"""What a check may say of an answer: let it leave, or ask the next rung."""
CertifiedCuts: TypeAlias = Annotated[
    dict[Literal["degrade", "defer", "refuse"], Literal["certified"]], Field(min_length=1, max_length=1)
]
"""The one verdict that a guard gives from the cut on that calibration certifies."""
BudgetShare: TypeAlias = Annotated[float, Field(gt=0, le=1)]
"""How much of the one false-alarm budget a guard may spend, beside the others."""

VERDICT_OF: dict[str, Verdict] = {verdict.name.lower(): verdict for verdict in Verdict}
"""Verdicts by the name that they have in a policy."""


class Strict(BaseModel):
    """Unknown fields are refused, nothing is converted (yes is no number), and values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("literal_error", "Input should be 1")
    return value


SchemaOne: TypeAlias = Annotated[Literal[1], BeforeValidator(_no_bool), Field(alias="schema")]
