"""Handlers of a caller's own decisions and reviews; to other callers these are 404, like unknown ones.

An id that is not the caller's takes the same steps as one that is unknown: neither what is replied nor how
long it takes tells whether it exists. Each caller has a limit of look-ups.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

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


Lookup: TypeAlias = Callable[[DataPlane, Caller, str, Stamp], Coroutine[Any, Any, Reply]]
"""Replies to one look-up of this caller, of this id."""


def decision(routed: RoutedRequest) -> Admitted:
    """Replies how one of the caller's requests ended. Raises RequestRejected for too many look-ups."""
    return _admit(routed, _reply_decision)


def review(routed: RoutedRequest) -> Admitted:
    """Replies the state of the review of one of the caller's deferred rows. Raises as `decision`."""
    return _admit(routed, _reply_review)


def _admit(routed: RoutedRequest, lookup: Lookup) -> Admitted:
    """Counts the look-up against its caller's limit."""
    plane, caller, id_ = routed.plane, routed.caller, routed.path["id"]
    plane.charge_lookup(caller)
    stamp = plane.stamp(routed.decision_id)
    return Admitted(0, lambda _: lookup(plane, caller, id_, stamp))


async def _reply_decision(plane: DataPlane, caller: Caller, id_: str, stamp: Stamp) -> Reply:
    """How a request of the caller ended; its findings only for a key with the scope `explain`."""
    audits = [one.audit for one in plane.usable(caller)]
    rows = await rows_anywhere(audits, plane.peers, id_, caller.principal)
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
        found = await _find_case(plane.usable(caller), case_id, caller.principal)
    except Exception:
        log.exception("the review queue cannot be read")
        return reply_unanswered(Refused(Reason.UNAVAILABLE), case_stamp)
    if found is None:
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


async def _find_case(
    gateways: Sequence[Gateway], case_id: str, principal: str
) -> tuple[Gateway, CaseRecord] | None:
    """A case of this principal, and the gateway in whose queue it is. Raises what a store raises.

    Asks every queue at once, whichever has it: the time would tell else which ids there are.
    """
    asked = [(one, one.review.store) for one in gateways if isinstance(one.review, QueuedReview)]
    found = await asyncio.gather(*(store.find(case_id) for _, store in asked), return_exceptions=True)
    for (gateway, _), record in zip(asked, found, strict=True):
        if isinstance(record, CaseRecord) and record.principal == principal:
            return gateway, record
    if errors := [one for one in found if isinstance(one, BaseException)]:
        raise errors[0]
    return None
