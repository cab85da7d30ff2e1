"""Waits for reviewers' answers to deferred rows, for callers that ask to wait (`Prefer: wait=N`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fallbacks.review.cases import CaseRecord
from gateway.access.callers import account_of
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Deferred, deferred_ids
from gateway.serving.answer_watch import POLL_EVERY_S
from gateway.serving.data_plane import Call
from gateway.serving.loaded import LoadedDeployment
from gateway.serving.review import QueuedReview
from gateway.serving.review_answers import outcome_of

log = logging.getLogger(__name__)


async def wait_for_reviews(
    call: Call, decisions: list[Decision], wait_s: float, size_bytes: int
) -> list[Decision]:
    """The decisions with reviewers' answers in place of deferrals, as far as they come within `wait_s`.

    The decisions as they are, at once, if the caller, or all callers, have as many requests waiting as may.
    size_bytes: of the request's body, which is held meanwhile. Callers without a key count as one.
    """
    review = call.gateway.review
    if not isinstance(review, QueuedReview) or not _deferred(decisions):
        return decisions
    account = account_of(call.caller.principal)
    if not review.answers.requests.acquire(account, size_bytes):
        return decisions
    try:
        return await _wait(review, call.gateway.loaded, decisions, now_s() + wait_s)
    except asyncio.CancelledError:  # the caller has hung up, and no reply has told it of any case
        review.withdraw(deferred_ids(decisions))
        raise
    except Exception:
        log.exception("the review queue cannot be read; the deferral stands")
        return decisions
    finally:
        review.answers.requests.release(account, size_bytes)


async def _wait(
    review: QueuedReview, loaded: LoadedDeployment, decisions: list[Decision], until_s: float
) -> list[Decision]:
    """Looks all open rows up at first, after each answer to one of them, when one expires, and at the end."""
    settled = list(decisions)
    while open_rows := _deferred(settled):
        records = await review.store.find_all(open_rows)
        for id_, at in open_rows.items():
            record = records.get(id_)
            outcome = outcome_of(record, loaded.contract, loaded.policy.review) if record else None
            if outcome is not None:
                settled[at] = settled[at]._replace(outcome=outcome)
        waiting = [records[id_] for id_ in _deferred(settled) if id_ in records]
        left_s = until_s - now_s()
        if left_s <= 0 or not waiting or review.answers.ended:
            break
        case_ids = {record.id for record in waiting}
        await review.answers.wait(case_ids, min(left_s, _until_one_expires_s(waiting, review.store.now_s())))
    return settled


def _deferred(decisions: list[Decision]) -> dict[str, int]:
    """The positions of the deferred rows by their ids."""
    return {one.id: at for at, one in enumerate(decisions) if isinstance(one.outcome, Deferred)}


def _until_one_expires_s(waiting: Sequence[CaseRecord], now_s: float) -> float:
    """Seconds until the first of these cases expires; never so few that the loop would not rest."""
    return max(min(record.expires_s for record in waiting) - now_s, POLL_EVERY_S)
