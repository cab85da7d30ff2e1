"""Replies over HTTP: answers exactly as the model gave them, and every other end as a JSON error.

`gateway/protocol/answers.py` decides what of a batch is sent. Withheld rows are blank: in binary NaN, the
type's minimum or empty, in JSON null.

Success is exactly 200, and an error's Content-Type exactly `application/json` with a string `error`, because
tritonclient and the KServe SDK check for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from fallbacks.oip.tensors import Array
from gateway.core.decision import Decision, Deferred, Reason, Refused
from gateway.core.errors import InvalidRequest
from gateway.core.rows import Mask
from gateway.listener.held import Room
from gateway.listener.messages import Reply
from gateway.protocol.answers import REVIEWS, NoAnswer, build_answer, reply_outputs
from gateway.protocol.contract import Contract
from gateway.protocol.disclosure import Full, Tier
from gateway.protocol.endings import (
    BY_NONE,
    Ending,
    Rejection,
    Stamp,
    UnansweredEnd,
    ending_of,
    error_text,
    header_name,
    retry_after_s,
    row_parameters,
    shared_parameters,
    status_of,
)
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.tensors import to_binary, to_json

_JSON_LINE = b"content-type: application/json\r\n"
_OCTETS_LINES = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
REFUSAL_PACE_S = 0.05
"""On one connection a caller over its limits is refused at once, then after 50 ms, 100 ms, up to 400 ms, each
up to a half more or less."""
_NOT_IN_A_HEADER = re.compile(r"[^\x20-\x7e]")
_FULL = Full()


def reply_json(body: bytes) -> Reply:
    """A 200 with a JSON body."""
    return Reply(200, _JSON_LINE, body)


def reply_allow(methods: Sequence[str]) -> Reply:
    """A 204 that says which methods a path has."""
    return Reply(204, _lines({"allow": ", ".join(methods)}), b"")


def render_http_infer(
    contract: Contract,
    request: InferRequest,
    outputs: Mapping[str, Array],
    parameters: Mapping[str, str],
    version: str | None = None,
    withheld: Mask | None = None,
) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON where binary data follows.

    Args:    outputs: at least those requested, in the contract's form.
             version: of the model that answered; the contract's unless given.
             withheld: bool[rows], the rows without an answer, which are null in JSON.
    Raises:  InvalidRequest if BYTES that are not UTF-8 were requested in JSON.
    """
    tensors: list[dict[str, Any]] = []
    tail: list[bytes | memoryview] = []
    for requested, spec, array, blank_rows in reply_outputs(contract, request, outputs, withheld):
        tensor: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": array.shape}
        if requested.binary:
            tail.append(part := to_binary(spec, array))
            tensor["parameters"] = {"binary_data_size": memoryview(part).nbytes}
        else:
            tensor["data"] = to_json(spec, array, blank_rows)
        tensors.append(tensor)
    document: dict[str, Any] = {"model_name": contract.model, "model_version": version or contract.version}
    if request.id is not None:
        document["id"] = request.id
    document |= {"parameters": parameters, "outputs": tensors}
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def reply_infer(
    contract: Contract,
    request: InferRequest,
    decisions: Sequence[Decision],
    stamp: Stamp,
    *,
    tier: Tier = _FULL,
    prefer_async: bool = False,
    reviews: str = REVIEWS,
) -> Reply:
    """The reply to one request, from one decision a row in row order. Only exposed outputs can leave.

    Args:    prefer_async: whether the client sent Prefer: respond-async; reviews: where tickets are polled.
    Cost:    FP32[1,10], full: about 7 us in JSON or binary.
    """
    answer = build_answer(contract, request, decisions, tier, reviews)
    if isinstance(answer, NoAnswer):
        return reply_unanswered(
            answer.end, stamp, request_id=request.id, prefer_async=prefer_async, urls=answer.urls
        )
    headers, parameters = _headers_and_parameters(answer.ending, stamp, answer.urls, answer.row_outcomes)
    try:
        body, length = render_http_infer(
            contract, request, answer.outputs, parameters, withheld=answer.withheld
        )
    except InvalidRequest as error:
        return reply_unanswered(error, stamp, request_id=request.id)
    return Reply(200, headers + (_JSON_LINE if length is None else _OCTETS_LINES % length), body)


def reply_unanswered(
    end: UnansweredEnd,
    stamp: Stamp | None = None,
    *,
    error: str = "",
    request_id: str | None = None,
    prefer_async: bool = False,
    urls: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    room: Room | None = None,
) -> Reply:
    """The reply to a request without an answer: a JSON object with a string `error`.

    Args:    stamp: absent only where a request failed before it had a decision id.
             error: the text, if not the usual one; urls: of the reviews of a deferred request.
             headers: further ones, such as Allow; room: as in `Reply`.
    """
    lines, parameters = _headers_and_parameters(ending_of(end), stamp, urls) if stamp else (b"", {})
    sent = dict(headers or {})
    wait_s = retry_after_s(end)
    if wait_s is not None:
        sent["retry-after"] = str(wait_s)
    if end is Rejection.UNAUTHENTICATED:
        sent["www-authenticate"] = "Bearer"
    extra: dict[str, str] = {}
    if isinstance(end, Deferred):
        extra["review_url"] = urls[0] if urls else REVIEWS + quote(end.ticket, safe="")
        if prefer_async:
            sent |= {"location": extra["review_url"], "preference-applied": "respond-async"}
    body = _error(error or error_text(end), parameters, request_id, extra)
    pace_s = REFUSAL_PACE_S if isinstance(end, Refused) and end.reason is Reason.RATE_LIMITED else 0.0
    lines = b"".join((_JSON_LINE, lines, _lines(sent)))
    return Reply(status_of(end, prefer_async).http, lines, body, pace_s, room=room)


def _headers_and_parameters(
    ending: Ending, stamp: Stamp, urls: Sequence[str] = (), row_outcomes: Sequence[str] = ()
) -> tuple[bytes, dict[str, str]]:
    """The headers and the body's parameters that say how a request ended."""
    headers, parameters = _shared(ending, stamp.policy, stamp.mode)
    id_ = stamp.decision_id or BY_NONE
    parameters = {**parameters, "fs_decision_id": id_}
    if urls or row_outcomes:
        parameters |= row_parameters(urls, row_outcomes)
    return b"%bx-failsafe-decision-id: %b\r\n" % (headers, _printable(id_)), parameters


@lru_cache(maxsize=1024)
def _shared(ending: Ending, policy: str, mode: str) -> tuple[bytes, dict[str, str]]:
    """What replies with one ending under one policy have in common. The dict is cached: copy it."""
    parameters = shared_parameters(ending, policy, mode)
    return _lines({header_name(name): value for name, value in parameters.items()}), parameters


def _lines(headers: Mapping[str, str]) -> bytes:
    return b"".join(b"%b: %b\r\n" % (name.encode(), _printable(value)) for name, value in headers.items())


def _printable(text: str) -> bytes:
    """The text with `?` for what a header cannot hold: the id of a review is from the request's path."""
    if not (text.isascii() and text.isprintable()):
        text = _NOT_IN_A_HEADER.sub("?", text)
    return text.encode()


def _error(
    text: str, parameters: Mapping[str, str], request_id: str | None, extra: Mapping[str, str] | None = None
) -> bytes:
    document: dict[str, Any] = {"error": text.encode("utf-8", "replace").decode(), **(extra or {})}
    if request_id is not None:
        document["id"] = request_id
    if parameters:
        document["parameters"] = parameters
    return orjson.dumps(document)
