"""The policy's `review` block: the queue of rows that wait for a reviewer's answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fallbacks.review.quotas import Quotas, Share
from gateway.policy.fields import Seconds, Strict

REFUSE = "refuse"
"""What `none_of_these` says where no label is meant, even if one is called so."""


class ReviewPolicy(Strict):
    """The queue of rows that wait for a reviewer's answer."""

    store: Annotated[str, Field(pattern=r"^sqlite:///.+")]
    """The queue's SQLite file: `sqlite:///` and a path relative to the deployment folder (`sqlite:////` and
    an absolute path). Made where it is missing, shared by the replicas. A change needs a restart."""
    capacity: Annotated[int, Field(ge=1)]
    """Cases that may be open or leased at the same time. Rows beyond that are refused as `unavailable`."""
    max_bytes: Annotated[int, Field(ge=2**20)] = 2**30
    """Bytes that these cases may take together: each its row and at least 4 KiB, and 512 for an identical row
    of the same caller, which joins the open case. Rows beyond that are refused as `unavailable`."""
    per_caller: Annotated[int, Field(ge=1)] | None = None
    """How many of these cases may be of one caller, and that part of `max_bytes` too: by default a quarter of
    `capacity`. The caller's rows beyond that are refused as `rate_limited`."""
    anonymous: Annotated[int, Field(ge=1)] | None = None
    """The same for all callers without a key together: by default half of `capacity`."""
    expire_after_s: Annotated[float, Field(ge=1)]
    """Seconds from a case's arrival until it expires undecided. A reload applies a new value to new cases."""
    on_expire: Literal["refuse"] = "refuse"
    """What the caller of an expired case gets: a refusal as `unavailable`. There is no other choice."""
    none_of_these: Annotated[str, Field(min_length=1)] = REFUSE
    """How a row ends of which a reviewer says that it is none of the classes: `refuse` (as `abstained`), or
    one of `labels`, such as `other`, which is then the answer. A reload applies it to answers of before."""
    budget_s: Seconds = 0.25
    """Seconds that storing the rows of one batch may take. At the limit the rows are refused as
    `unavailable`."""

    @property
    def quotas(self) -> Quotas:
        """What the cases of one caller, of callers without a key, and all of them may take."""
        caller = -(-self.capacity // 4) if self.per_caller is None else self.per_caller
        anonymous = -(-self.capacity // 2) if self.anonymous is None else self.anonymous
        return Quotas(self.max_bytes, self._share(caller), self._share(anonymous))

    def _share(self, cases: int) -> Share:
        """So many cases, and the same part of the bytes."""
        part = min(cases, self.capacity)
        return Share(part, -(-self.max_bytes * part // self.capacity))
