"""Between the pipeline and the review store: a row becomes a case, a decided case becomes an outcome.

The id of a case is the row's decision id, so a caller needs one id for both. What a reviewer sees is stored
with the case: the row itself, why it was deferred, and the classes that a model found likeliest. Callers
never see that part.
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

from fallbacks.oip.payload import encode
from fallbacks.review.cases import Case, CaseRecord, CaseState
from fallbacks.review.store import ReviewStore
from gateway.core.decision import Degraded, Outcome, Reason, Refused, Tensors, Verdict
from gateway.core.pipeline import ReviewRequest
from gateway.protocol.contract import Contract
from gateway.protocol.endings import BY_REVIEW
from gateway.protocol.tensors import blank

SUGGESTED = "probabilities"
"""The model output that is shown to a reviewer."""
SUGGESTIONS = 3
SWEEP_EVERY_S = 60.0
KEEP_S = 30 * 86_400.0
"""How long decided and expired cases are kept."""
log = logging.getLogger(__name__)


class QueuedReview:
    """Human review by way of a review store; the pipeline's `Review`."""

    def __init__(
        self, store: ReviewStore, expire_after_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self.expire_after_s = expire_after_s
        self._clock = clock

    async def put(self, requests: Sequence[ReviewRequest], /) -> Sequence[bool]:
        """Stores rows durably, in order; False where there is no room. Raises what the store raises."""
        now_s = self._clock()
        return await self.store.put([self._case(request, now_s) for request in requests])

    async def sweep(self) -> None:
        """Until cancelled: marks expired cases, and deletes final ones, payloads included, after 30 days."""
        while True:
            try:
                await self.store.expire(self._clock())
                await self.store.purge(self._clock() - KEEP_S)
            except Exception:
                log.exception("the review queue could not be tended; the next round tries again")
            await asyncio.sleep(SWEEP_EVERY_S)

    def _case(self, request: ReviewRequest, now_s: float) -> Case:
        return Case(
            id=request.id,
            principal=request.principal,
            created_s=now_s,
            expires_s=now_s + self.expire_after_s,
            payload=encode(request.inputs),
            why=orjson.dumps(_why(request)).decode(),
            model_view=orjson.dumps(_likeliest_classes(request.suggestion)).decode(),
        )


class NoReview:
    """A deployment without human review: every row that needs it is refused."""

    async def put(self, requests: Sequence[ReviewRequest], /) -> Sequence[bool]:
        return [False] * len(requests)


def _why(request: ReviewRequest) -> dict[str, Any]:
    """The row's reason, and the enforced findings that raised its verdict."""
    raised = [f for f in request.findings if f.verdict > Verdict.ALLOW and f.enforced]
    return {
        "reason": request.reason,
        "raised": [{"stage": f.stage, "score": f.score, "error": f.error, "form": f.form} for f in raised],
    }


def _likeliest_classes(suggestion: Tensors | None) -> list[list[float]]:
    """[[class, probability], ...] of the likeliest classes; empty without a suggestion of probabilities."""
    if suggestion is None or SUGGESTED not in suggestion or suggestion[SUGGESTED].dtype.kind != "f":
        return []
    p: NDArray[Any] = suggestion[SUGGESTED].reshape(-1)
    best = np.argsort(-p, kind="stable")[:SUGGESTIONS]
    return [[int(i), round(float(p[i]), 4)] for i in best]


def answer_with_label(label: int) -> str:
    """The stored answer of a reviewer who names a class."""
    return orjson.dumps({"label": label}).decode()


def answer_unsure() -> str:
    """The stored answer of a reviewer who cannot tell: the row is refused."""
    return orjson.dumps({"unsure": True}).decode()


def outcome_of(record: CaseRecord, contract: Contract) -> Outcome | None:
    """How a case ended for its caller, in the form of the model's own outputs; None while it waits.

    Every output that scores classes is one-hot at the class that the reviewer named; others are blank.
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
