"""The review console and its API, on one set of routes.

    | route                        | does                                                             |
    |------------------------------|------------------------------------------------------------------|
    | `GET /review`                | lists the open and leased cases                                  |
    | `POST /review/claim`         | {lease_s?}: leases the next case to this reviewer, 204 if there  |
    |                              | is none                                                          |
    | `GET /review/{id}`           | one case                                                         |
    | `POST /review/{id}/answer`   | {fence, and label, value, none or unsure}: decides it for good   |
    | `POST /review/{id}/release`  | {fence}: makes it open again                                     |
    | `POST /review/{id}/renew`    | {fence, lease_s?}: extends the lease                             |
    | `GET /review/{id}/image.png` | a picture of it, encoded here; `?input=` names one of several    |

The reviewer is the person who sends the request. Forms get pages, JSON gets JSON. What may be answered
follows from the contract's target (`answers.py`). A reviewer whose lease has ended gets 409, and an answer
that another reviewer gave stands.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fallbacks.review.cases import WAITING, CaseRecord, CaseState, Claim
from fallbacks.review.store import ReviewStore, StaleLease
from gateway.access.persons import Role
from gateway.admin.acts import record_act
from gateway.admin.answers import InvalidAnswer, keyed, read_answer
from gateway.admin.authentication import person_of
from gateway.admin.pages import fields_of, gateway_of, json_reply, page, problem, wants_html
from gateway.admin.pages.cases import (
    answer_fields,
    case_fields,
    claim_fields,
    form_fields,
    inputs_in,
    inputs_of,
    labels_of,
    list_preview,
    row_fields,
    suggestion_fields,
)
from gateway.admin.pictures import is_picture, pixels
from gateway.admin.review_fields import LEASE_S, fence_of, lease_s_of
from gateway.admin.routes import AdminRoute
from gateway.png import png
from gateway.serving.gateway import Gateway
from gateway.serving.review import QueuedReview
from gateway.serving.review_summary import format_number

LISTED_CASES = 50
STALE_LEASE_TEXT = (
    "Your time with this case ran out, or somebody else has it, or it is already answered. "
    "What you sent was not kept."
)


async def listing(request: Request) -> Response:
    """The open and leased cases, the soonest expiry first."""
    gateway, store = gateway_of(request), _store(request)
    records, counts = await store.list_cases(WAITING, LISTED_CASES), await store.counts()
    waiting = sum(counts.by_state[state] for state in WAITING)
    cases = [case_fields(record, gateway, store.now_s()) for record in records]
    if not wants_html(request):
        return json_reply({"waiting": waiting, "oldest_s": counts.oldest_waiting_s, "cases": cases})
    small = [await list_preview(store, record, gateway) for record in records]
    me = person_of(request).name
    return page(
        request,
        "queue",
        cases=[case | {"small": one} for case, one in zip(cases, small, strict=True)],
        waiting=waiting,
        oldest_s=counts.oldest_waiting_s,
        capacity=_capacity(gateway),
        me=me,
        mine=[case for case in cases if case["state"] == "leased" and case["reviewer"] == me],
        done=request.query_params.get("done"),
        refresh_s=10,
        refresh_to="/review" if request.query_params else None,
    )


async def claim(request: Request) -> Response:
    """Leases the next case to this reviewer. A browser is sent to the case that it holds already, if any."""
    fields = await fields_of(request)
    store, reviewer = _store(request), person_of(request).name
    if not wants_html(request):
        claims = await _claimed(request, lease_s_of(fields))
        if not claims:
            return Response(status_code=204)
        return json_reply(claim_fields(claims[0], gateway_of(request), request.scope.get("root_path", "")))
    path = await _held_case_path(store, reviewer) or await _next_case_path(request)
    return RedirectResponse(path or "/review?done=all", 303)


async def case(request: Request) -> Response:
    """One case; its page has the answer form only for the reviewer who holds it."""
    record = await _store(request).find(request.path_params["id"])
    if record is None:
        return problem(request, 404, "No such case", "there is no case of this id; old ones are deleted")
    if wants_html(request):
        return await _case_page(request, record)
    fields = await _whole_case(request, record)
    return json_reply(fields | {"shown": [asdict(one) for one in fields["shown"]]})


async def _whole_case(request: Request, record: CaseRecord) -> dict[str, Any]:
    gateway = gateway_of(request)
    row = row_fields(await inputs_in(_store(request), record), gateway)
    return {
        **case_fields(record, gateway, _store(request).now_s()),
        **row,
        "form": form_fields(gateway),
        "suggestion": suggestion_fields(record.model_view, gateway),
        "answer": answer_fields(record, gateway),
    }


async def _case_page(
    request: Request, record: CaseRecord, status: int = 200, wrong: str = "", typed: str = ""
) -> Response:
    """The page of a case. wrong: what is wrong with the answer that was sent; typed: its number, as sent."""
    fields = await _whole_case(request, record)
    me = person_of(request).name
    return page(
        request,
        "case",
        status,
        c=fields,
        me=me,
        held=record.state is CaseState.LEASED and record.reviewer == me,
        fence=record.fence,
        left_s=max(0.0, (record.lease_until_s or 0.0) - _store(request).now_s()),
        labels=keyed(labels_of(gateway_of(request))),
        done=request.query_params.get("done"),
        wrong=wrong,
        typed=typed,
        number=format_number,
    )


async def answer(request: Request) -> Response:
    """Decides a case permanently, and sends a browser to the next one."""
    fields, gateway, store = await fields_of(request), gateway_of(request), _store(request)
    id_, reviewer = request.path_params["id"], person_of(request).name
    try:
        answered = read_answer(fields, gateway.loaded.contract)
    except InvalidAnswer as error:
        record = await store.find(id_) if wants_html(request) else None
        if record is None:
            raise HTTPException(422, str(error)) from error
        return await _case_page(request, record, 422, str(error), str(fields.get("value", "")))
    try:
        await store.resolve(id_, fence_of(fields), reviewer, answered)
    except StaleLease:
        return _reply_stale_lease(request, "answer")
    _record(request, "answer", id_)
    if wants_html(request):
        following = await _held_case_path(store, reviewer) or await _next_case_path(request)
        return RedirectResponse(f"{following}?done=one" if following else "/review?done=all", 303)
    return json_reply({"id": id_, "answer": orjson.loads(answered)})


async def release(request: Request) -> Response:
    """Makes a leased case open again."""
    id_, fence = request.path_params["id"], fence_of(await fields_of(request))
    try:
        await _require_own(request, id_)
        await _store(request).release(id_, fence)
    except StaleLease:
        return _reply_stale_lease(request, "release")
    _record(request, "release", id_)
    if wants_html(request):
        return RedirectResponse("/review?done=back", 303)
    return json_reply({"id": id_, "state": CaseState.OPEN})


async def renew(request: Request) -> Response:
    """Extends the lease, counted from now."""
    fields = await fields_of(request)
    id_, lease_s = request.path_params["id"], lease_s_of(fields)
    try:
        await _require_own(request, id_)
        await _store(request).renew(id_, fence_of(fields), lease_s)
    except StaleLease:
        return _reply_stale_lease(request, "renew")
    _record(request, "renew", id_)
    if wants_html(request):
        return RedirectResponse(f"/review/{quote(id_, safe='')}", 303)
    return json_reply({"id": id_, "expires": _store(request).now_s() + lease_s})


async def image(request: Request) -> Response:
    """A picture of the case as PNG: the first, or the input that `?input=` names."""
    payload = await _store(request).payload(request.path_params["id"])
    wanted = request.query_params.get("input")
    for name, array in inputs_of(payload).items():
        if is_picture(array) and wanted in (None, name):
            spec = gateway_of(request).loaded.contract.inputs_by_name.get(name)
            return Response(png(pixels(array, spec)), media_type="image/png")
    raise HTTPException(404, "this case has no such picture")


ROUTES = [
    AdminRoute("/review", listing, Role.REVIEWER),
    AdminRoute("/review/claim", claim, Role.REVIEWER, ["POST"]),
    AdminRoute("/review/{id}", case, Role.REVIEWER),
    AdminRoute("/review/{id}/answer", answer, Role.REVIEWER, ["POST"]),
    AdminRoute("/review/{id}/release", release, Role.REVIEWER, ["POST"]),
    AdminRoute("/review/{id}/renew", renew, Role.REVIEWER, ["POST"]),
    AdminRoute("/review/{id}/image.png", image, Role.REVIEWER),
]


def _store(request: Request) -> ReviewStore:
    review = gateway_of(request).review
    if not isinstance(review, QueuedReview):
        raise HTTPException(404, "this deployment asks no people: its policy has no review")
    return review.store


def _capacity(gateway: Gateway) -> int:
    return gateway.loaded.policy.review.capacity if gateway.loaded.policy.review else 0


async def _claimed(request: Request, lease_s: float) -> list[Claim]:
    """The next case, leased to the sender, or none."""
    claims = await _store(request).claim(person_of(request).name, lease_s)
    for one in claims:
        _record(request, "claim", one.case.id)
    return claims


async def _held_case_path(store: ReviewStore, reviewer: str) -> str | None:
    """The path of the case that this reviewer holds, or None."""
    for record in await store.list_cases((CaseState.LEASED,), LISTED_CASES):
        if record.reviewer == reviewer:
            return f"/review/{quote(record.id, safe='')}"
    return None


async def _next_case_path(request: Request) -> str | None:
    """The path of a newly claimed case; None if none is open."""
    claims = await _claimed(request, LEASE_S)
    return f"/review/{quote(claims[0].case.id, safe='')}" if claims else None


async def _require_own(request: Request, id_: str) -> None:
    """Raises StaleLease unless the latest claim of the case is the sender's."""
    record = await _store(request).find(id_)
    if record is None or record.reviewer != person_of(request).name:
        raise StaleLease(f"case {id_} is not held by this reviewer")


def _record(request: Request, act: str, id_: str, *, done: bool = True) -> None:
    record_act(request, act, id_, done=done, gateways=[gateway_of(request)])


def _reply_stale_lease(request: Request, act: str) -> Response:
    _record(request, act, request.path_params["id"], done=False)
    return problem(request, 409, "Too late for this case", STALE_LEASE_TEXT)
