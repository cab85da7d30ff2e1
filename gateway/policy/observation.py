"""`observe: {until: DATE}`: a guard that is measured until a moment, and enforced from then on.

So a new guard can be watched on real traffic without a new calibration. While a certified guard is only
observed, no promise of the certificate is in force (`conditions.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Protocol, TypeAlias

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.policy.fields import Strict

_MOMENT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?Z?)?$"
_FORMS = "Input should be a date such as 2027-01-31, its first moment in UTC, or 2027-01-31T12:00Z"


def _moment(value: Any) -> datetime:
    """A moment in UTC from a text, or from what YAML makes of a date without quotes."""
    try:
        if isinstance(value, str) and re.fullmatch(_MOMENT, value):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC)
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError("moment", _FORMS)


Moment: TypeAlias = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "pattern": _MOMENT})
]
"""A moment in UTC."""


class ObservePolicy(Strict):
    """Until when a guard is only observed."""

    until: Moment
    """The moment from which the guard is enforced, by the system's clock, without a restart or reload:
    `2027-01-31`, its first moment in UTC, or `2027-01-31T12:00Z`. One that has passed changes nothing."""

    @property
    def text(self) -> str:
        """The moment as it is shown, to the second if it has any."""
        return f"{self.until:%Y-%m-%d %H:%M}{f':{self.until:%S}' if self.until.second else ''} UTC"


class ObservableGuard(Protocol):
    """What is read here of a guard's policy."""

    @property
    def name(self) -> str: ...
    @property
    def observe(self) -> ObservePolicy | None: ...


def observed_at(guards: Iterable[ObservableGuard], now: datetime) -> frozenset[str]:
    """The names of the guards that are only observed at a moment, because of their `observe`."""
    return frozenset(one.name for one in guards if one.observe is not None and now < one.observe.until)


def utc_now() -> datetime:
    """The moment by the system's clock."""
    return datetime.now(UTC)
