"""A set of rows that the demo sends, and how they must end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.cli.demo_client import Ending
from gateway.core.decision import OUTCOME_NAMES
from gateway.protocol.endings import Rejection

OUTCOMES = tuple(OUTCOME_NAMES.values())
REJECTIONS = frozenset(Rejection)
LeastShares: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """A set of rows: their endings, the least share of some, and the outcomes that none may have."""

    title: str
    endings: Counter[Ending]
    least_shares: LeastShares = field(default_factory=dict)
    never: Sequence[str] = ()

    def share(self, outcome: str) -> float:
        """The share of rows that ended as `outcome`, which may be `OUTCOME:REASON`."""
        n = sum(c for (end, why, _), c in self.endings.items() if outcome in (end, f"{end}:{why}"))
        return n / max(sum(self.endings.values()), 1)

    @property
    def passed(self) -> bool:
        """Whether each least share is reached ("a|b" adds two) and every request was taken and ended."""
        known = all(end in OUTCOMES and why not in REJECTIONS for end, why, _ in self.endings)
        enough = all(
            sum(self.share(o) for o in endings.split("|")) >= least
            for endings, least in self.least_shares.items()
        )
        return known and enough and bool(self.endings) and not any(self.share(o) for o in self.never)
