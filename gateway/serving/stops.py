"""What operators have stopped, as values: a stop of one scope, all stops of one file, and those of one model.

    | scope          | model | rung    | what gives no answer                      |
    |----------------|-------|---------|-------------------------------------------|
    | everything     | `*`   | none    | any model that uses the file              |
    | one model      | name  | none    | its rungs, and its rows reach no model    |
    | one rung       | name  | name    | that rung: its rows go to the next one    |
    | a rung's name  | `*`   | name    | that rung of every model that has it      |

Stops of several scopes stand beside each other: to lift one lifts no other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, Field

from gateway.policy.fields import Name, Strict

EVERY: Final = "*"
"""In the place of a model's name: every model that uses the file."""
LONGEST_REASON = 500


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Moment: TypeAlias = Annotated[datetime, Field(strict=False), AfterValidator(_in_utc)]


class Scope(NamedTuple):
    """What one stop is of. rung: None for all rungs of the model."""

    model: str = EVERY
    rung: str | None = None

    def __str__(self) -> str:
        if self.rung is None:
            return "everything" if self.model == EVERY else self.model
        return f"rung {self.rung}" + ("" if self.model == EVERY else f" of {self.model}")


class Stop(Strict):
    """One stop. by: who stopped it, "" if unknown; at: when; reason: in that person's words, or ""."""

    model: Name | Literal["*"] = EVERY
    rung: Name | None = None
    by: str
    at: Moment
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] = ""

    @property
    def scope(self) -> Scope:
        return Scope(self.model, self.rung)

    def __str__(self) -> str:
        """In one line, for operators."""
        text = f"stopped by {self.by or 'an unknown person'} at {self.at:%Y-%m-%d %H:%M:%S} UTC"
        return f"{text}: {self.reason}" if self.reason else text


@dataclass(frozen=True, slots=True)
class ModelStops:
    """What is stopped of one model. Of one that is stopped as a whole, `rungs` has the others beside that.

    why: why no rung of it may answer and none of its rows is judged; "" if it is not stopped as a whole.
    rungs: the rungs that are stopped each by itself.
    """

    why: str = ""
    rungs: frozenset[str] = frozenset()

    def has(self, rung: str) -> bool:
        """Whether this rung may not answer."""
        return bool(self.why) or rung in self.rungs


@dataclass(frozen=True, slots=True)
class Stops:
    """All stops of one file, at most one a scope. problem: why it cannot be read: everything is stopped."""

    stops: tuple[Stop, ...] = ()
    problem: str = ""

    def __post_init__(self) -> None:
        if len({stop.scope for stop in self.stops}) < len(self.stops):
            raise ValueError("two stops of one scope")

    def adding(self, stop: Stop) -> Stops:
        """With this stop; the same if there is one of its scope already."""
        if stop.scope in {one.scope for one in self.stops}:
            return self
        return replace(self, stops=(*self.stops, stop))

    def lifting(self, scope: Scope) -> Stops:
        """Without the stop of exactly this scope."""
        return replace(self, stops=tuple(one for one in self.stops if one.scope != scope))

    def of(self, model: str) -> ModelStops:
        """What is stopped of the model of this name."""
        own = [stop for stop in self.stops if stop.model in (EVERY, model)]
        whole = next((str(stop) for stop in own if stop.rung is None), "")
        rungs = frozenset(stop.rung for stop in own if stop.rung is not None)
        return ModelStops(self.problem or whole, rungs)
