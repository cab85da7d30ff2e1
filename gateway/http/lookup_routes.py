"""Handlers of a caller's own decisions and reviews; to other callers these are 404, like unknown ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import orjson

from fallbacks.review.cases import CaseRecord, CaseState
from gateway.access.callers import Caller
from gateway.core.decision import Decision, Reason, Refused
from gateway.http.replies import reply_infer, reply_json, reply_unanswered
from gateway.http.routes import RoutedRequest
from gateway.listener.messages import Admitted, Reply
from gateway.protocol.endings import Rejection, Stamp
from gateway.protocol.infer_request import InferRequest
from gateway.serving.data_plane import DataPlane
from gateway.serving.decisions import model_of, rows_anywhere
from gateway.serving.gateway import Gateway
from gateway.serving.review import QueuedReview
from gateway.serving.review_answers import outcome_of

log = logging.getLogger(__name__)


def decision(routed: RoutedRequest) -> Admitted:
    """Replies how one of the caller's requests ended."""
    plane, stamp, id_ = routed.plane, routed.plane.stamp(routed.decision_id), routed.path["id"]
    return Admitted(0, lambda _: _reply_decision(plane, routed.caller, id_, stamp))


def review(routed: RoutedRequest) -> Admitted:
    """Replies the state of the review of one of the caller's deferred rows."""
    plane, stamp, id_ = routed.plane, routed.plane.stamp(routed.decision_id), routed.path["id"]
    return Admitted(0, lambda _: _reply_review(plane, routed.caller, id_, stamp))


async def _reply_decision(plane: DataPlane, caller: Caller, id_: str, stamp: Stamp) -> Reply:
    """How a request of the caller ended; its findings only for a key with the scope `explain`."""
    rows = await rows_anywhere([one.audit for one in plane.usable(caller)], plane.peers, id_)
    if not rows or rows[0]["principal"] != caller.principal or not caller.may_use(model_of(rows[0])):
        return reply_unanswered(Rejection.NOT_FOUND, stamp, error="no such decision of yours is kept")
    document = {name: rows[0][name] for name in ("policy", "mode")}
    coarse = ("id", "outcome", "reason", "by")
    explain = "explain" in caller.scopes
    document["rows"] = rows if explain else [{name: row.get(name) for name in coarse} for row in rows]
    return reply_json(orjson.dumps({"id": id_, "received": rows[0]["t"], **document}))


async def _reply_review(plane: DataPlane, caller: Caller, case_id: str, stamp: Stamp) -> Reply:
    """The state of a review of the caller; the reviewer's answer has the form of the model's outputs."""
    case_stamp = stamp._replace(decision_id=case_id)
    try:
        found = await _find_case(plane.usable(caller), case_id)
    except Exception:
        log.exception("the review queue cannot be read")
        return reply_unanswered(Refused(Reason.UNAVAILABLE), case_stamp)
    if found is None or found[1].principal != caller.principal:
        return reply_unanswered(Rejection.NOT_FOUND, stamp, error="no such review of yours")
    gateway, record = found
    loaded, case_stamp = gateway.loaded, plane.stamp(case_id, gateway)
    outcome = outcome_of(record, loaded.contract, loaded.policy.review)
    document: dict[str, Any] = {"id": case_id, "state": "waiting", "expires": record.expires_s}
    if outcome is not None:
        document["state"] = "expired" if record.state is CaseState.EXPIRED else "decided"
        request = InferRequest(None, {}, 1, loaded.contract.default_outputs[False])
        decisions, tier = [Decision(case_id, outcome)], loaded.tier(caller.tier)
        reply = reply_infer(loaded.contract, request, decisions, case_stamp, tier=tier)
        document["answer"] = orjson.loads(reply.body)
    return reply_json(orjson.dumps(document))


async def _find_case(gateways: Sequence[Gateway], case_id: str) -> tuple[Gateway, CaseRecord] | None:
    """A case, and the gateway in whose queue it is. Raises what a store raises."""
    for gateway in gateways:
        if isinstance(gateway.review, QueuedReview):
            record = await gateway.review.store.find(case_id)
            if record is not None:
                return gateway, record
    return None
