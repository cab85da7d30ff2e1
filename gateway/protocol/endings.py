"""How a request ends: the one table of status codes of HTTP and gRPC, and the parameters of every reply.

    | outcome  | because                         | HTTP                     | gRPC                |
    |----------|---------------------------------|--------------------------|---------------------|
    | served   |                                 | 200                      | OK                  |
    | degraded | a fallback answered             | 200                      | OK                  |
    | deferred | a reviewer will answer          | 422, or 202 if asked for | FAILED_PRECONDITION |
    | refused  | abstained                       | 422                      | FAILED_PRECONDITION |
    | refused  | rate_limited                    | 429 + Retry-After        | RESOURCE_EXHAUSTED  |
    | refused  | unavailable                     | 503 + Retry-After        | RESOURCE_EXHAUSTED  |
    | refused  | stopped                         | 503 + Retry-After        | RESOURCE_EXHAUSTED  |
    | refused  | deadline                        | 504                      | DEADLINE_EXCEEDED   |
    | refused  | invalid for the model           | 400                      | INVALID_ARGUMENT    |
    | refused  | never judged: a `Rejection`     | 400 to 501               | as in `STATUSES`    |

KServe's gRPC client retries UNAVAILABLE three times, so a refusal to save load never has that code. A caller
learns one coarse reason and a decision id: a score, a cut or a guard's name would be an oracle.

A row that the model cannot take ends as a request does that breaks the contract: `Reason.INVALID` is
`Rejection.INVALID`, and has its status. Only the model can tell the one, and the gateway the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from gateway.core.decision import (
    OUTCOME_NAMES,
    Deferred,
    Degraded,
    Outcome,
    Reason,
    Refused,
    Served,
    severity,
)
from gateway.core.errors import InvalidRequest

BY_REVIEW = "review"
BY_NONE = "none"
LONGEST_RETRY_S = 86_400
SHOWN_PROBLEMS = 8
_OK = str(Reason.OK)


class Rejection(StrEnum):
    """Why a request was never judged. The value is its stable `fs_reason`."""

    INVALID = "invalid"
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TOO_SLOW = "too_slow"
    UNSUPPORTED = "unsupported"
    UNEXPECTED = "expectation_failed"
    UNSUPPORTED_MEDIA = "unsupported_media"
    MISDIRECTED = "misdirected"
    HEAD_TOO_LARGE = "head_too_large"


class Deferral(StrEnum):
    """How a deferral is replied: as an error, or as accepted if the client sent `Prefer: respond-async`."""

    ERROR = "deferred"
    ACCEPTED = "accepted"


UnansweredEnd: TypeAlias = Deferred | Refused | Rejection | InvalidRequest
RequestEnd: TypeAlias = Served | Degraded | UnansweredEnd
Cause: TypeAlias = Deferral | Reason | Rejection
"""Why a request ends without an answer: the key of `STATUSES`."""


class Status(NamedTuple):
    """How each protocol reports an end: HTTP status, name of the gRPC status; error: the usual text."""

    http: int
    grpc: str
    error: str = ""


ANSWERED = Status(200, "OK")
INVALID_FOR_MODEL = "the model cannot take these values: an index, a length or a text is none that it knows"
_DEFERRED = "deferred to a person, who will answer at review_url"
STATUSES: dict[Cause, Status] = {
    Deferral.ERROR: Status(422, "FAILED_PRECONDITION", _DEFERRED),
    Deferral.ACCEPTED: Status(202, "FAILED_PRECONDITION", _DEFERRED),
    Reason.OK: Status(503, "RESOURCE_EXHAUSTED", "no answer is available now"),  # no refusal has this reason
    Reason.ABSTAINED: Status(422, "FAILED_PRECONDITION", "the gateway abstains from answering this request"),
    Reason.RATE_LIMITED: Status(429, "RESOURCE_EXHAUSTED", "too many requests: try again later"),
    Reason.UNAVAILABLE: Status(503, "RESOURCE_EXHAUSTED", "no answer is available now: try again later"),
    Reason.DEADLINE: Status(504, "DEADLINE_EXCEEDED", "no answer before the deadline"),
    Reason.STOPPED: Status(503, "RESOURCE_EXHAUSTED", "this model is stopped: try again later"),
    Rejection.INVALID: Status(400, "INVALID_ARGUMENT", "the request is not valid"),
    Rejection.TOO_LARGE: Status(413, "INVALID_ARGUMENT", "the request is too large"),
    Rejection.UNAUTHENTICATED: Status(401, "UNAUTHENTICATED", "a valid key is needed"),
    Rejection.FORBIDDEN: Status(403, "PERMISSION_DENIED", "this key does not allow that"),
    Rejection.NOT_FOUND: Status(404, "NOT_FOUND", "there is nothing here"),
    Rejection.METHOD_NOT_ALLOWED: Status(405, "UNIMPLEMENTED", "this method is not allowed here"),
    Rejection.TOO_SLOW: Status(408, "DEADLINE_EXCEEDED", "the request did not arrive in time"),
    Rejection.UNSUPPORTED: Status(501, "UNIMPLEMENTED", "this gateway does not support that"),
    Rejection.UNEXPECTED: Status(417, "INVALID_ARGUMENT", "what the request expects cannot be met"),
    Rejection.UNSUPPORTED_MEDIA: Status(
        415, "INVALID_ARGUMENT", "the form or coding of the body is not one that is taken"
    ),
    Rejection.MISDIRECTED: Status(421, "PERMISSION_DENIED", "this gateway has no such host"),
    Rejection.HEAD_TOO_LARGE: Status(431, "INVALID_ARGUMENT", "the headers are too large or too many"),
}


def status_of(end: RequestEnd, prefer_async: bool = False) -> Status:
    """The status of one end. prefer_async: whether the client sent `Prefer: respond-async`."""
    match end:
        case Served() | Degraded():
            return ANSWERED
        case Deferred():
            return STATUSES[Deferral.ACCEPTED if prefer_async else Deferral.ERROR]
        case Refused():
            return STATUSES[end.reason]
        case Rejection():
            return STATUSES[end]
        case InvalidRequest():
            return STATUSES[Rejection.INVALID]


def error_text(end: UnansweredEnd) -> str:
    """The error of one end: fixed for each cause, but for an invalid request, whose problems it lists."""
    if isinstance(end, Refused) and end.reason is Reason.INVALID:
        return INVALID_FOR_MODEL
    if not isinstance(end, InvalidRequest):
        return status_of(end).error
    text = "; ".join(map(str, end.problems[:SHOWN_PROBLEMS]))
    more = len(end.problems) - SHOWN_PROBLEMS
    return f"{text}; and {more} more" if more > 0 else text


def worst_row(outcomes: Sequence[Outcome]) -> Outcome:
    """The first row with the worst outcome. A refusal has the longest retry time of all with its reason."""
    worst = outcomes[0] if len(outcomes) == 1 else max(outcomes, key=severity)
    if not isinstance(worst, Refused):
        return worst
    waits_s = [o.retry_after_s for o in outcomes if isinstance(o, Refused) and o.reason == worst.reason]
    return replace(worst, retry_after_s=max((s for s in waits_s if s is not None), default=None))


def retry_after_s(end: RequestEnd) -> int | None:
    """Whole seconds for Retry-After, 1 to 86,400, if the status has that header."""
    if not isinstance(end, Refused) or STATUSES[end.reason].http not in (429, 503):
        return None
    wait_s = end.retry_after_s
    if wait_s is None or math.isnan(wait_s):
        return 1
    return math.ceil(min(max(wait_s, 1.0), LONGEST_RETRY_S))


class Ending(NamedTuple):
    """What a caller learns of an end: outcome, one coarse reason, and the rung (or review) that answered."""

    outcome: str
    reason: str
    by: str


def ending_of(end: RequestEnd) -> Ending:
    match end:
        case Served():
            return Ending(OUTCOME_NAMES[Served], _OK, end.by)
        case Degraded():
            return Ending(OUTCOME_NAMES[Degraded], str(end.reason), end.by)
        case Deferred():
            return Ending(OUTCOME_NAMES[Deferred], str(end.reason), BY_REVIEW)
        case Refused():
            return Ending(OUTCOME_NAMES[Refused], str(end.reason), BY_NONE)
        case Rejection():
            return Ending(OUTCOME_NAMES[Refused], str(end), BY_NONE)
        case InvalidRequest():
            return Ending(OUTCOME_NAMES[Refused], str(Rejection.INVALID), BY_NONE)


class Stamp(NamedTuple):
    """What every reply names: the policy that judged (name@version#hash), its mode, and the decision id."""

    policy: str
    mode: str
    decision_id: str


def shared_parameters(ending: Ending, policy: str, mode: str) -> dict[str, str]:
    """The five parameters that many replies have in common, none empty; a sixth is the decision id."""
    return {
        "fs_outcome": ending.outcome,
        "fs_reason": ending.reason,
        "fs_served_by": ending.by or BY_NONE,
        "fs_policy": policy or BY_NONE,
        "fs_mode": mode or BY_NONE,
    }


def reply_parameters(
    ending: Ending, stamp: Stamp, urls: Sequence[str] = (), row_outcomes: Sequence[str] = ()
) -> dict[str, str]:
    """All parameters of a reply, as `row_parameters` has the last two."""
    parameters = shared_parameters(ending, stamp.policy, stamp.mode)
    parameters["fs_decision_id"] = stamp.decision_id or BY_NONE
    return parameters | row_parameters(urls, row_outcomes)


def row_parameters(urls: Sequence[str], row_outcomes: Sequence[str]) -> dict[str, str]:
    """The parameters that list something of several rows, of which a reply has those that are not empty.

    Args:    urls: where the answers to the deferred rows can be polled, in row order.
             row_outcomes: how each row ended, at most 9 characters for each of `max_batch_rows`.
    """
    listed = {"fs_review_urls": urls, "fs_row_outcomes": row_outcomes}
    return {name: ",".join(texts) for name, texts in listed.items() if texts}


def header_name(parameter: str) -> str:
    """The name of a parameter as a header and as a trailer: `fs_mode` is `x-failsafe-mode`."""
    return parameter.replace("fs_", "x-failsafe-", 1).replace("_", "-")
