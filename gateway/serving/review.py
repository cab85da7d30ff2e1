"""Between the pipeline and the people: a row becomes a case, an answered case becomes an outcome.

A ticket is the row's decision id, so a caller needs one id for both. What a person sees is kept with the
case: the row itself, why it came, and what a model would have said. Callers never see that part.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from fallbacks.review.cases import Case, CaseRecord, CaseState
from fallbacks.review.payload import encode
from fallbacks.review.queue import ReviewQueue
from gateway.core.decision import Degraded, Outcome, Reason, Refused, Tensors, Verdict
from gateway.core.pipeline import ReviewRequest
from gateway.protocol.contract import Contract
from gateway.protocol.endings import BY_REVIEW
from gateway.protocol.tensors import blank

SUGGESTED = "probabilities"
TOP = 3
TEND_EVERY_S = 60.0
KEEP_S = 30 * 86_400.0
log = logging.getLogger(__name__)


class QueuedReview:
    """The review queue as the pipeline sees it: `Review`."""

    def __init__(
        self, queue: ReviewQueue, expire_after_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.queue = queue
        self.expire_after_s = expire_after_s
        self._clock = clock

    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool]:
        """Takes cases durably, in order; False where there is no room. Raises what the database raises."""
        now_s = self._clock()
        return await self.queue.put([self._stored(case, now_s) for case in cases])

    async def tend(self) -> None:
        """Until cancelled: stores what has expired; forgets final cases, payloads included, after 30 days."""
        while True:
            try:
                await self.queue.expire(self._clock())
                await self.queue.purge(self._clock() - KEEP_S)
            except Exception:
                log.exception("the review queue could not be tended; the next round tries again")
            await asyncio.sleep(TEND_EVERY_S)

    def _stored(self, case: ReviewRequest, now_s: float) -> Case:
        return Case(
            id=case.id,
            principal=case.principal,
            created_s=now_s,
            expires_s=now_s + self.expire_after_s,
            payload=encode(case.inputs),
            why=orjson.dumps(_why(case)).decode(),
            model_view=orjson.dumps(_suggestion(case.suggestion)).decode(),
        )


class NoReview:
    """A deployment without people: whatever would need one is refused."""

    async def put(self, cases: Sequence[ReviewRequest], /) -> Sequence[bool]:
        return [False] * len(cases)


def _why(case: ReviewRequest) -> dict[str, Any]:
    raised = [f for f in case.findings if f.verdict > Verdict.ALLOW and f.enforced]
    return {
        "reason": case.reason,
        "raised": [{"stage": f.stage, "score": f.score, "error": f.error, "form": f.form} for f in raised],
    }


def _suggestion(view: Tensors | None) -> list[list[float]]:
    """[[class, probability], ...] of the likeliest classes; empty where no model had a view."""
    if view is None or SUGGESTED not in view or view[SUGGESTED].dtype.kind != "f":
        return []
    p: NDArray[Any] = view[SUGGESTED].reshape(-1)
    best = np.argsort(-p, kind="stable")[:TOP]
    return [[int(i), round(float(p[i]), 4)] for i in best]


def answer_with_label(label: int) -> str:
    """What the console stores when a person names a class."""
    return orjson.dumps({"label": label}).decode()


def answer_unsure() -> str:
    """What the console stores when a person cannot tell either: the caller is refused, not guessed at."""
    return orjson.dumps({"unsure": True}).decode()


def outcome_of(record: CaseRecord, contract: Contract) -> Outcome | None:
    """How a case ended for its caller, in the form of the model's own outputs; None while it waits.

    The class that a person names stands in every output that scores classes; others are blank.
    """
    if record.state is CaseState.EXPIRED:
        return Refused(Reason.UNAVAILABLE)
    if record.state is not CaseState.DECIDED or record.answer is None:
        return None
    label = orjson.loads(record.answer).get("label")
    scored = [s for s in contract.outputs if s.dtype.kind == "f" and isinstance(s.shape[-1], int)]
    if not isinstance(label, int) or not all(0 <= label < (spec.shape[-1] or 0) for spec in scored):
        return Refused(Reason.ABSTAINED)
    outputs = {spec.name: blank(spec, (1, *(d or 1 for d in spec.shape[1:]))) for spec in contract.outputs}
    outputs |= {spec.name: _one_hot(label, spec.shape, spec.dtype) for spec in scored}
    return Degraded(outputs, BY_REVIEW, Reason(orjson.loads(record.why)["reason"]))


def _one_hot(label: int, shape: tuple[int | None, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    row = np.zeros((1, *(d or 1 for d in shape[1:])), dtype)
    row[..., label] = 1
    return row
