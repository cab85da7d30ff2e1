"""Where people answer: the review console and its API, on one set of routes.

    | route                        | does                                                             |
    |------------------------------|------------------------------------------------------------------|
    | `GET /review`                | what waits                                                       |
    | `POST /review/claim`         | {reviewer, lease_s?}: the next case for this person, or 204      |
    | `GET /review/{id}`           | one case                                                         |
    | `POST /review/{id}/answer`   | {fence, reviewer, label or unsure}: decides it for good          |
    | `POST /review/{id}/release`  | {fence}: gives it back                                           |
    | `POST /review/{id}/renew`    | {fence, lease_s?}: keeps it longer                               |
    | `GET /review/{id}/image.png` | a picture of it, encoded by us; `?input=` names one of several   |

Forms get pages, JSON gets JSON. A label is a name of the policy or a number of a class. Whoever is late
(the lease ended, somebody else has the case) gets 409, and what the other said stands.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any
from urllib.parse import quote, unquote

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fallbacks.review.cases import WAITING, CaseState
from fallbacks.review.store import ReviewStore, StaleLease
from gateway.admin.pages import fields_of, gateway_of, page, problem, told, wants_html
from gateway.admin.pages.cases import (
    about,
    answer_of,
    claimed,
    decoded,
    labels_of,
    shown_of,
    small,
    suggestion,
)
from gateway.admin.preview import is_picture, pixels, png
from gateway.serving.gateway import Gateway
from gateway.serving.review import QueuedReview, answer_unsure, answer_with_label

LEASE_S = 600.0
LONGEST_LEASE_S = 3600.0
LISTED = 50
REVIEWER = "fs_reviewer"
REVIEWER_S = 30 * 86_400
MAX_NAME = 80
LATE = (
    "Your time with this case ran out, or somebody else has it, or it is already answered. "
    "What you sent was not kept."
)


async def listing(request: Request) -> Response:
    """What waits, the most urgent first."""
    gateway, store = gateway_of(request), _store(request)
    records, counts = await store.list_cases(WAITING, LISTED), await store.counts()
    waiting = sum(counts.by_state[state] for state in WAITING)
    cases = [about(record, gateway) for record in records]
    if not wants_html(request):
        return told({"waiting": waiting, "oldest_s": counts.oldest_waiting_s, "cases": cases})
    shown = [case | {"small": await small(store, case["id"], gateway)} for case in cases]
    me = _me(request)
    return page(
        request,
        "queue",
        cases=shown,
        waiting=waiting,
        oldest_s=counts.oldest_waiting_s,
        capacity=_capacity(gateway),
        me=me,
        mine=[case for case in cases if case["state"] == "leased" and case["reviewer"] == me],
        done=request.query_params.get("done"),
        refresh_s=10 if me else None,
        refresh_to="/review" if request.query_params else None,
    )


async def claim(request: Request) -> Response:
    """The next case for this person: from a form, the one already in their hands, if there is one."""
    fields = await fields_of(request)
    store, reviewer = _store(request), _reviewer(fields)
    if not wants_html(request):
        claims = await store.claim(reviewer, _lease_s(fields))
        return told(claimed(claims[0], gateway_of(request))) if claims else Response(status_code=204)
    reply = RedirectResponse(await _next(store, reviewer) or "/review?done=all", 303)
    secure = request.url.scheme == "https"
    reply.set_cookie(
        REVIEWER, quote(reviewer), max_age=REVIEWER_S, httponly=True, samesite="strict", secure=secure
    )
    return reply


async def case(request: Request) -> Response:
    """One case: to answer it for whoever holds it, to look at it for anybody else."""
    gateway, store = gateway_of(request), _store(request)
    record = await store.find(request.path_params["id"])
    if record is None:
        return problem(request, 404, "No such case", "there is no case of this id; old ones are deleted")
    shown = await shown_of(store, record.id, gateway)
    facts = about(record, gateway) | {
        "shown": shown,
        "suggestion": suggestion(record.model_view, gateway),
        "answer": answer_of(record, gateway),
    }
    if not wants_html(request):
        return told(facts | {"shown": [asdict(one) for one in shown]})
    me = _me(request)
    held = record.state is CaseState.LEASED and record.reviewer == me
    return page(
        request,
        "case",
        c=facts,
        me=me,
        held=held,
        fence=record.fence,
        left_s=max(0.0, (record.lease_until_s or 0.0) - time.time()),
        labels=labels_of(gateway),
        done=request.query_params.get("done"),
    )


async def answer(request: Request) -> Response:
    """Decides a case for good, and gives a person at a browser the next one."""
    fields, gateway, store = await fields_of(request), gateway_of(request), _store(request)
    reviewer, answered = _reviewer(fields), _read_answer(fields, labels_of(gateway))
    try:
        await store.resolve(request.path_params["id"], _fence(fields), reviewer, answered)
    except StaleLease:
        return _late(request)
    if wants_html(request):
        following = await _next(store, reviewer)
        return RedirectResponse(f"{following}?done=one" if following else "/review?done=all", 303)
    return told({"id": request.path_params["id"], "answer": orjson.loads(answered)})


async def release(request: Request) -> Response:
    """Gives a case back for somebody else."""
    fields = await fields_of(request)
    try:
        await _store(request).release(request.path_params["id"], _fence(fields))
    except StaleLease:
        return _late(request)
    if wants_html(request):
        return RedirectResponse("/review?done=back", 303)
    return told({"id": request.path_params["id"], "state": CaseState.OPEN})


async def renew(request: Request) -> Response:
    """Keeps a case longer, counted from now."""
    fields = await fields_of(request)
    id_, lease_s = request.path_params["id"], _lease_s(fields)
    try:
        await _store(request).renew(id_, _fence(fields), lease_s)
    except StaleLease:
        return _late(request)
    if wants_html(request):
        return RedirectResponse(f"/review/{quote(id_, safe='')}", 303)
    return told({"id": id_, "expires": time.time() + lease_s})


async def image(request: Request) -> Response:
    """The case's picture as PNG: the first that it has, or the one that `?input=` names."""
    payload = await _store(request).payload(request.path_params["id"])
    wanted = request.query_params.get("input")
    for name, array in decoded(payload).items():
        if is_picture(array) and wanted in (None, name):
            spec = gateway_of(request).loaded.contract.inputs_by_name.get(name)
            return Response(png(pixels(array, spec)), media_type="image/png")
    raise HTTPException(404, "this case has no such picture")


ROUTES = [
    Route("/review", listing),
    Route("/review/claim", claim, methods=["POST"]),
    Route("/review/{id}", case),
    Route("/review/{id}/answer", answer, methods=["POST"]),
    Route("/review/{id}/release", release, methods=["POST"]),
    Route("/review/{id}/renew", renew, methods=["POST"]),
    Route("/review/{id}/image.png", image),
]


def _store(request: Request) -> ReviewStore:
    review = gateway_of(request).review
    if not isinstance(review, QueuedReview):
        raise HTTPException(404, "this deployment asks no people: its policy has no review")
    return review.store


def _capacity(gateway: Gateway) -> int:
    return gateway.loaded.policy.review.capacity if gateway.loaded.policy.review else 0


async def _next(store: ReviewStore, reviewer: str) -> str | None:
    """Where this person goes on: to the case that they hold already, or to a new one."""
    for record in await store.list_cases((CaseState.LEASED,), LISTED):
        if record.reviewer == reviewer:
            return f"/review/{quote(record.id, safe='')}"
    claims = await store.claim(reviewer, LEASE_S)
    return f"/review/{quote(claims[0].case.id, safe='')}" if claims else None


def _late(request: Request) -> Response:
    return problem(request, 409, "Too late for this case", LATE)


def _me(request: Request) -> str:
    return _clean(unquote(request.cookies.get(REVIEWER, "")))


def _clean(name: str) -> str:
    return "".join(c for c in name if c.isprintable()).strip()[:MAX_NAME]


def _reviewer(fields: dict[str, Any]) -> str:
    name = fields.get("reviewer")
    clean = _clean(name) if isinstance(name, str) else ""
    if not clean:
        raise HTTPException(422, "reviewer: say who you are")
    return clean


def _lease_s(fields: dict[str, Any]) -> float:
    given = fields.get("lease_s", LEASE_S)
    if not isinstance(given, int | float) or isinstance(given, bool) or not 1 <= given <= LONGEST_LEASE_S:
        raise HTTPException(422, f"lease_s: a number from 1 to {LONGEST_LEASE_S:g}")
    return float(given)


def _fence(fields: dict[str, Any]) -> int:
    given = str(fields.get("fence", ""))
    if not (given.isascii() and given.isdigit() and len(given) <= 9):
        raise HTTPException(422, "fence: the number that came with the case")
    return int(given)


def _read_answer(fields: dict[str, Any], labels: tuple[str, ...]) -> str:
    """The answer as it is stored.

    A page names the class, so that whoever answers and the policy of this moment cannot mean different ones.
    """
    label = fields.get("label")
    if fields.get("unsure") in (True, "1"):
        return answer_unsure()
    if isinstance(label, str) and label in labels:
        return answer_with_label(labels.index(label))
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(labels):
        return answer_with_label(label)
    raise HTTPException(422, f"label: must be one of {', '.join(labels)}, or its number, or say unsure: true")
