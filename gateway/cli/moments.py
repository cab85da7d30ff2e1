"""Moments as people write them: a date, a date and time, or so long from now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
FORMS = "30d (also s, m, h, w), 2027-01-31 (its first moment, UTC) or 2027-01-31T12:00"
_DURATION = re.compile(rf"([0-9]{{1,9}})([{''.join(UNITS)}])")


def parse_moment(text: str, now: datetime) -> datetime:
    """A moment after `now`, in whole seconds and UTC. Raises ValueError that says what is wrong."""
    try:
        if found := _DURATION.fullmatch(text.strip()):
            moment = now + timedelta(**{UNITS[found[2]]: int(found[1])})
        else:
            moment = datetime.fromisoformat(text.strip())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no moment: write {FORMS}") from None
    if moment <= now:
        raise ValueError(f"{text!r} is not in the future")
    return moment.replace(microsecond=0)


def format_moment(moment: datetime) -> str:
    """To the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
