"""Converts rows to cases of the review store; `review_answers.py` converts decided cases to outcomes.

The id of a case is the row's decision id, so a caller needs one id for both. A case has what a reviewer sees:
the row itself, the reasons for deferral, and a model's view of it. Callers never see these.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import orjson

from fallbacks.oip.payload import encode
from fallbacks.review.cases import Case
from fallbacks.review.quotas import PutResult
from fallbacks.review.store import ReviewStore
from gateway.access.callers import ANONYMOUS, is_anonymous
from gateway.core.decision import Reason, Refused, Verdict
from gateway.core.pipeline import ReviewRequest
from gateway.serving.answer_watch import AnswerWatch
from gateway.serving.review_summary import brief, model_view

SWEEP_EVERY_S = 60.0
RETENTION_S = 30 * 86_400.0
"""How long decided cases are kept, without their rows: so long may a caller fetch the answer."""
EXPIRED_RETENTION_S = (600.0, 86_400.0)
"""How long expired cases are kept: as long as they waited, within these limits. So a flood that no reviewer
answers takes no more than twice the room of what may wait."""
WITHDRAW_AGAIN_S = 5.0
WITHDRAWN_AT_ONCE, WITHDRAWN_IN_ALL = 200, 20_000
"""Rows that one transaction withdraws; and the most that wait for it. Beyond, the oldest stay stored."""
OVER_QUOTA_RETRY_S = 60.0
"""When a caller whose share of the queue is full may try again: room comes as reviewers answer."""
_OVER_QUOTA = Refused(Reason.RATE_LIMITED, OVER_QUOTA_RETRY_S)
log = logging.getLogger(__name__)


class QueuedReview:
    """Human review through a review store; the pipeline's `Review`."""

    def __init__(self, store: ReviewStore, expire_after_s: float) -> None:
        self.store = store
        self.expire_after_s = expire_after_s
        self.answers = AnswerWatch(store)
        self._unwanted: deque[str] = deque(maxlen=WITHDRAWN_IN_ALL)
        self._withdrawing: asyncio.Task[None] | None = None

    async def put(self, requests: Sequence[ReviewRequest], /) -> Sequence[bool | Refused]:
        """Stores rows durably, in order; False for rows over the capacity. Raises what the store raises.

        A row over the quota of its caller is refused as `rate_limited`. If it raises, or is cancelled, rows
        that may have been stored are withdrawn.
        """
        now_s = self.store.now_s()
        try:
            results = await self.store.put([self._case(request, now_s) for request in requests])
            if [type(one) for one in results] != [PutResult] * len(requests):
                raise TypeError("the review store does not say of each row what became of it")
        except BaseException:
            self.withdraw([request.id for request in requests])
            raise
        return [_OVER_QUOTA if one is PutResult.OVER_QUOTA else one is PutResult.STORED for one in results]

    def withdraw(self, ids: Sequence[str]) -> None:
        """Deletes rows whose callers were not told that they wait. Returns at once; tries until it succeeds.

        Reviewers would work for no caller, and the caller's place would be taken for nothing.
        """
        self._unwanted.extend(ids)
        if self._withdrawing is None or self._withdrawing.done():
            self._withdrawing = asyncio.get_running_loop().create_task(self._withdraw_all())

    async def finish(self, within_s: float) -> None:
        """Withdraws what is to be withdrawn, as far as that takes no longer than this."""
        if self._withdrawing is not None:
            await asyncio.wait([self._withdrawing], timeout=within_s)
            self._withdrawing.cancel()

    async def _withdraw_all(self) -> None:
        while self._unwanted:
            some = [self._unwanted.popleft() for _ in range(min(len(self._unwanted), WITHDRAWN_AT_ONCE))]
            try:
                await self.store.withdraw(some)
            except Exception as error:  # noqa: BLE001 - a database raises its own
                self._unwanted.extend(some)
                log.warning("%d rows cannot be withdrawn from the review queue yet: %s", len(some), error)
                await asyncio.sleep(WITHDRAW_AGAIN_S)

    async def sweep(self) -> None:
        """Until cancelled: marks expired cases, which deletes their rows; deletes what is old enough."""
        while True:
            try:
                await self.store.expire(self.store.now_s())
                now_s, (least_s, most_s) = self.store.now_s(), EXPIRED_RETENTION_S
                expired_s = min(max(self.expire_after_s, least_s), most_s)
                await self.store.purge(now_s - RETENTION_S, now_s - expired_s)
            except Exception:
                log.exception("the review queue could not be tended; the next round tries again")
            await asyncio.sleep(SWEEP_EVERY_S)

    def _case(self, request: ReviewRequest, now_s: float) -> Case:
        """One row as a case. A row of the same caller is the same case if a reviewer would see no difference.

        The policy need not be the same: an answer is read by the one in force when its caller fetches it.
        """
        view = orjson.dumps(model_view(request.suggestion)).decode()
        return Case(
            id=request.id,
            principal=request.principal,
            created_s=now_s,
            expires_s=now_s + self.expire_after_s,
            payload=encode(request.inputs),
            why=orjson.dumps(_reason_and_findings(request)).decode(),
            model_view=view,
            pool=ANONYMOUS if is_anonymous(request.principal) else "",
            group=f"{request.reason} {view}",
        )


def _reason_and_findings(request: ReviewRequest) -> dict[str, Any]:
    """The row's reason, its beginning, and the enforced findings that raised its verdict."""
    raised = [f for f in request.findings if f.verdict > Verdict.ALLOW and f.enforced]
    return {
        "reason": request.reason,
        "brief": brief(request.inputs),
        "raised": [{"stage": f.stage, "score": f.score, "error": f.error, "form": f.form} for f in raised],
    }
