"""Every error the gateway raises. Errors carry data; `protocol/endings.py` owns the status codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class GatewayError(Exception):
    """The root of all errors that the gateway raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a file or request: field, message, file, line (0: none), nearest valid choice."""

    field: str
    what: str
    file: str = ""
    line: int = 0
    nearest: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        return f"{place}{self.field}: {self.what}{hint}" if self.field else f"{place}{self.what}{hint}"


class Problems(GatewayError):
    """An error that names every problem it found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class PolicyError(Problems):
    """At load: the policy does not compile. Refuse to start, or keep the old pipeline."""


class ArtifactError(Problems):
    """At load: a model, a guard file or the certificate is missing, broken or does not match."""


class InvalidRequest(Problems):
    """At parse: what the caller can correct, field by field."""


class StageFailure(GatewayError):
    """At run time; never leaves the pipeline."""


class BudgetExceeded(StageFailure):
    """A part did not answer within its time budget."""


class GuardFailed(StageFailure):
    """A guard or check raised, or returned something that is not one number per row."""


class ModelFailed(StageFailure):
    """A model raised, or returned something that breaks its output contract."""


class StoreFailed(StageFailure):
    """A store (the review queue) could not store or return what was requested."""


class InputRejected(StageFailure):
    """The model is known to work, and cannot take this row: that is the caller's to correct."""


class RowInDoubt(StageFailure):
    """The model raised on these rows: one of them is no input for it, or the model is broken."""
