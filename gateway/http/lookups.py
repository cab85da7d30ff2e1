"""What callers hear after the fact: their own decisions, their own reviews, and answers of people.

Everything here is the caller's own: what belongs to another, or to nobody, is the same 404.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson

from fallbacks.review.cases import CaseState
from gateway.access.callers import Caller
from gateway.core.decision import Decision, Reason, Refused
from gateway.http.replies import reply_end, reply_infer, reply_json
from gateway.listener.messages import Reply
from gateway.protocol.endings import Rejection, Stamp
from gateway.protocol.infer_request import InferRequest
from gateway.serving.decisions import rows_anywhere
from gateway.serving.gateway import Gateway
from gateway.serving.replicas import PeerReplicas
from gateway.serving.review import QueuedReview, outcome_of

log = logging.getLogger(__name__)


async def reply_decision(
    gateway: Gateway, peers: PeerReplicas, caller: Caller, id_: str, stamp: Stamp
) -> Reply:
    """How a request of the caller ended, coarse; what was found of it only with the scope `explain`."""
    rows = await rows_anywhere(gateway.audit, peers, id_)
    if not rows or rows[0]["principal"] != caller.principal:
        return reply_end(Rejection.NOT_FOUND, stamp, what="no such decision of yours is kept")
    told = {name: rows[0][name] for name in ("policy", "mode")}
    coarse = ("id", "outcome", "reason", "by")
    explain = "explain" in caller.scopes
    told["rows"] = rows if explain else [{name: row.get(name) for name in coarse} for row in rows]
    return reply_json(orjson.dumps({"id": id_, "received": rows[0]["t"], **told}))


async def reply_review(gateway: Gateway, caller: Caller, case_id: str, stamp: Stamp) -> Reply:
    """How the caller's deferred row stands; a person's answer has the form of the model's outputs."""
    review, loaded = gateway.review, gateway.loaded
    own = stamp._replace(decision_id=case_id)
    try:
        record = await review.store.find(case_id) if isinstance(review, QueuedReview) else None
    except Exception:
        log.exception("the review queue cannot be read")
        return reply_end(Refused(Reason.UNAVAILABLE), own)
    if record is None or record.principal != caller.principal:
        return reply_end(Rejection.NOT_FOUND, stamp, what="no such review of yours")
    outcome = outcome_of(record, loaded.contract)
    told: dict[str, Any] = {"id": case_id, "state": "waiting", "expires": record.expires_s}
    if outcome is not None:
        told["state"] = "expired" if record.state is CaseState.EXPIRED else "decided"
        asked = InferRequest(None, {}, 1, loaded.contract.default_outputs[False])
        decided = [Decision(case_id, outcome)]
        reply = reply_infer(loaded.contract, asked, decided, own, tier=loaded.tier(caller.tier))
        told["answer"] = orjson.loads(reply.body)
    return reply_json(orjson.dumps(told))
