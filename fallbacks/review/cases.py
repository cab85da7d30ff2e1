"""Review cases: what is stored of each, and which state it is in at a given time.

    open ──claim──> leased ──resolve──> decided
      ^               │
      └─release, or───┘        open or leased, past expires_s ──> expired
        the lease ends

The state is a function of what is stored and of the time: a case past its expiry is expired and a lease past
its end has ended, whether or not the store has written that down yet.

Every claim gives its case a new random fence. A reviewer who acts on a case sends the fence of the claim: so
one whose lease has ended cannot overwrite the reviewer who holds the case now, and no other can guess it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_PAYLOAD_BYTES: Final = 33 * 2**20
"""A row may fill a body of 8 MiB, and a number that takes two bytes there (`0,`) may take eight here."""

CASE_BYTES: Final = 4096
"""What a case counts beside its texts and its payload: its other columns and their indexes."""


class CaseState(StrEnum):
    """Open, leased, decided or expired. The last two are final."""

    OPEN = "open"
    LEASED = "leased"
    DECIDED = "decided"
    EXPIRED = "expired"


WAITING: Final = (CaseState.OPEN, CaseState.LEASED)
"""The states that are not final. Cases in them count against the capacity of a store."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row to be reviewed.

    Args:    id: unique in its store. principal: the caller whose row it is. created_s, expires_s: seconds of
             the wall clock. payload: the row (see `fallbacks.oip.payload`). why: JSON, what guards and checks
             found. model_view: JSON, what a model would have answered.
    Raises:  ValueError for times that are not finite, or a payload over MAX_PAYLOAD_BYTES.
    """

    id: str
    principal: str
    created_s: float
    expires_s: float
    payload: bytes
    why: str
    model_view: str
    pool: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.created_s) and math.isfinite(self.expires_s)):
            raise ValueError(f"case {self.id}: created_s and expires_s must be finite")
        if len(self.payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"case {self.id}: {len(self.payload)} bytes, over {MAX_PAYLOAD_BYTES}")

    @property
    def size_bytes(self) -> int:
        """What the case counts against quotas while it waits."""
        return CASE_BYTES + len(self.payload) + len(self.why) + len(self.model_view)

    def digest(self) -> bytes:
        """SHA-256 of principal, group and payload: cases of equal digests are one question to a reviewer."""
        found = hashlib.sha256(f"{len(self.principal)} {self.principal} {self.group}\0".encode())
        found.update(self.payload)
        return found.digest()


@dataclass(frozen=True, slots=True)
class Claim:
    """A case leased to one reviewer until `until_s`. `fence` identifies this lease of the case."""

    case: Case
    fence: int
    until_s: float


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """A case as it stands, without its payload.

    `fence` and `reviewer` are those of the latest claim, 0 and None before the first. `answer` (JSON) and
    `decided_s` are None unless the case is decided.
    """

    id: str
    principal: str
    created_s: float
    expires_s: float
    why: str
    model_view: str
    state: CaseState
    fence: int
    reviewer: str | None
    lease_until_s: float | None
    answer: str | None
    decided_s: float | None


@dataclass(frozen=True, slots=True)
class CaseCounts:
    """How many cases are in each state, every state listed, and the age of the oldest open or leased one."""

    by_state: dict[CaseState, int]
    oldest_waiting_s: float | None
