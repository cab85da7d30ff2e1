"""The policy's `review` block: the queue of rows that wait for a reviewer's answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

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
