"""Guards whose `observe` ends while they serve: from that moment on they are enforced.

The pipeline in force is replaced once, when the moment comes; a batch pays nothing for it. A clock that is
set back makes no guard of that pipeline observed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from gateway.deployment.enforcement import with_enforcement
from gateway.policy.observation import observed_at
from gateway.serving.loaded import LoadedDeployment

LONGEST_SLEEP_S = 1.0
"""Between two looks at the system's clock, which may step."""


def enforced_when_due(loaded: LoadedDeployment, now: datetime) -> LoadedDeployment:
    """The same deployment, with the guards enforced whose `observe` has ended; itself if there is none."""
    observed = loaded.observed & observed_at(loaded.policy.guards, now)
    ended = loaded.observed - observed
    if not ended:
        return loaded
    if loaded.policy.mode != "enforce":
        return replace(loaded, observed=observed)
    return replace(loaded, observed=observed, pipeline=with_enforcement(loaded.pipeline, ended, enforce=True))


def seconds_to_next_end(loaded: LoadedDeployment, now: datetime) -> float:
    """Seconds until the next `observe` ends, at most LONGEST_SLEEP_S; at least 0."""
    ends = (
        one.observe.until
        for one in loaded.policy.guards
        if one.observe is not None and one.name in loaded.observed
    )
    return max(0.0, min([LONGEST_SLEEP_S, *((end - now).total_seconds() for end in ends)]))


async def enforce_when_due(enforce_due: Callable[[], float]) -> None:
    """Until cancelled. enforce_due: enforces what is due, and says in how many seconds to ask again."""
    wait_s = enforce_due()
    while True:
        await asyncio.sleep(wait_s)
        wait_s = enforce_due()
