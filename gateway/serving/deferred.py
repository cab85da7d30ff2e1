"""Waits for reviewers' answers to deferred rows, for callers that ask to wait (`Prefer: wait=N`)."""

from __future__ import annotations

import asyncio
import logging

from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Deferred
from gateway.serving.gateway import Gateway
from gateway.serving.review import QueuedReview
from gateway.serving.review_answers import outcome_of

POLL_EVERY_S = 0.1
log = logging.getLogger(__name__)


async def wait_for_reviews(gateway: Gateway, decisions: list[Decision], wait_s: float) -> list[Decision]:
    """The decisions with reviewers' answers in place of deferrals, as far as they come within `wait_s`."""
    review, loaded = gateway.review, gateway.loaded
    until_s = now_s() + wait_s
    settled = list(decisions)
    while isinstance(review, QueuedReview) and now_s() < until_s:
        open_rows = [i for i, d in enumerate(settled) if isinstance(d.outcome, Deferred)]
        if not open_rows:
            break
        await asyncio.sleep(POLL_EVERY_S)
        for i in open_rows:
            try:
                record = await review.store.find(settled[i].id)
            except Exception:
                log.exception("the review queue cannot be read; the deferral stands")
                return settled
            outcome = outcome_of(record, loaded.contract, loaded.policy.review) if record else None
            if outcome is not None:
                settled[i] = Decision(settled[i].id, outcome, settled[i].findings, settled[i].policy)
    return settled
