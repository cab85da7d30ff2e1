"""How much of a review store may be taken: by one caller, by a pool of callers, and in all.

A case counts from its `put` until it is decided or expired, a row that joined an identical one as long as
that. Both kinds of quota hold over all processes that share a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fallbacks.review.cases import Case

UNLIMITED: Final = 2**62
MEMBER_BYTES: Final = 512
"""What a row counts that joined the case of an identical one: its id, and its place in two indexes."""
ALL: Final = "all"
"""The account of the whole store."""


class PutResult(StrEnum):
    """Stored; over a quota of the caller's own; no room in the whole store; or the case itself is rejected.

    A case is rejected if it has expired, or if its id is stored for a different one.
    """

    STORED = "stored"
    OVER_QUOTA = "over_quota"
    FULL = "full"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Share:
    """So many open and leased cases, and so many bytes of them."""

    cases: int
    size_bytes: int


NO_LIMIT: Final = Share(UNLIMITED, UNLIMITED)
NOTHING: Final = Share(0, 0)


@dataclass(frozen=True, slots=True)
class Quotas:
    """The most that cases may take. size_bytes: in all; principal: those of one; pool: those of one pool."""

    size_bytes: int = UNLIMITED
    principal: Share = NO_LIMIT
    pool: Share = NO_LIMIT


def accounts_of(case: Case) -> tuple[str, ...]:
    """The accounts that a case counts in; the triggers in `sqlite/counting.py` keep the same ones."""
    own = (ALL, f"principal/{case.principal}")
    return (*own, f"pool/{case.pool}") if case.pool else own


def check_room(
    used: Mapping[str, Share], case: Case, taken: Share, capacity: int, quotas: Quotas
) -> PutResult:
    """STORED if `taken` more fits into every account of the case; else the reason why it does not.

    used: what each account has, those without any left out.
    """
    whole, own, *pools = (used.get(account, NOTHING) for account in accounts_of(case))
    if not _fits(whole, taken, Share(capacity, quotas.size_bytes)):
        return PutResult.FULL
    fits = _fits(own, taken, quotas.principal) and all(_fits(one, taken, quotas.pool) for one in pools)
    return PutResult.STORED if fits else PutResult.OVER_QUOTA


def _fits(used: Share, taken: Share, limit: Share) -> bool:
    """Whether what is taken fits beside what is used. Where nothing is taken, nothing can be too much."""
    cases_fit = not taken.cases or used.cases + taken.cases <= limit.cases
    return cases_fit and used.size_bytes + taken.size_bytes <= limit.size_bytes
