"""How a request ends: the one table that owns the codes of both protocols, and what a caller is told.

    | outcome  | because                         | HTTP                     | gRPC                |
    |----------|---------------------------------|--------------------------|---------------------|
    | served   |                                 | 200                      | OK                  |
    | degraded | a fallback answered             | 200                      | OK                  |
    | deferred | a person will answer            | 422, or 202 if asked for | FAILED_PRECONDITION |
    | refused  | abstained                       | 422                      | FAILED_PRECONDITION |
    | refused  | rate_limited                    | 429 + Retry-After        | RESOURCE_EXHAUSTED  |
    | refused  | unavailable                     | 503 + Retry-After        | RESOURCE_EXHAUSTED  |
    | refused  | deadline                        | 504                      | DEADLINE_EXCEEDED   |
    | refused  | never judged: a `Rejection`     | 400 to 501               | as in `_CODES`      |

KServe's gRPC client retries UNAVAILABLE three times, so nothing is shed with that code. A caller learns
one coarse reason and a decision id: a score, a cut or a guard's name would be an oracle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from gateway.core.decision import Deferred, Degraded, Outcome, Reason, Refused, Served, severity
from gateway.core.errors import InvalidRequest

BY_REVIEW = "review"
BY_NONE = "none"
_OK = str(Reason.OK)
LONGEST_RETRY_S = 86_400


class Rejection(StrEnum):
    """What ends a request that was never judged. The value is its stable `fs_reason`."""

    INVALID = "invalid"
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TOO_SLOW = "too_slow"
    UNSUPPORTED = "unsupported"
    UNEXPECTED = "expectation_failed"
    HEAD_TOO_LARGE = "head_too_large"


Unanswered: TypeAlias = Deferred | Refused | Rejection | InvalidRequest
End: TypeAlias = Served | Degraded | Unanswered


class Code(NamedTuple):
    """What a protocol calls an end: the HTTP status and the name of the gRPC status."""

    http: int
    grpc: str


_ANSWERED = Code(200, "OK")
_DEFERRED = Code(422, "FAILED_PRECONDITION")
_ACCEPTED = Code(202, "FAILED_PRECONDITION")
_CODES: dict[Reason | Rejection, Code] = {
    Reason.OK: Code(503, "RESOURCE_EXHAUSTED"),  # no refusal has this reason
    Reason.ABSTAINED: Code(422, "FAILED_PRECONDITION"),
    Reason.RATE_LIMITED: Code(429, "RESOURCE_EXHAUSTED"),
    Reason.UNAVAILABLE: Code(503, "RESOURCE_EXHAUSTED"),
    Reason.DEADLINE: Code(504, "DEADLINE_EXCEEDED"),
    Rejection.INVALID: Code(400, "INVALID_ARGUMENT"),
    Rejection.TOO_LARGE: Code(413, "INVALID_ARGUMENT"),
    Rejection.UNAUTHENTICATED: Code(401, "UNAUTHENTICATED"),
    Rejection.FORBIDDEN: Code(403, "PERMISSION_DENIED"),
    Rejection.NOT_FOUND: Code(404, "NOT_FOUND"),
    Rejection.METHOD_NOT_ALLOWED: Code(405, "UNIMPLEMENTED"),
    Rejection.TOO_SLOW: Code(408, "DEADLINE_EXCEEDED"),
    Rejection.UNSUPPORTED: Code(501, "UNIMPLEMENTED"),
    Rejection.UNEXPECTED: Code(417, "INVALID_ARGUMENT"),
    Rejection.HEAD_TOO_LARGE: Code(431, "INVALID_ARGUMENT"),
}
_WORDS: dict[Reason | Rejection, str] = {
    Reason.OK: "no answer is available now",
    Reason.ABSTAINED: "the gateway abstains from answering this request",
    Reason.RATE_LIMITED: "too many requests: try again later",
    Reason.UNAVAILABLE: "no answer is available now: try again later",
    Reason.DEADLINE: "no answer before the deadline",
    Rejection.INVALID: "the request is not valid",
    Rejection.TOO_LARGE: "the request is too large",
    Rejection.UNAUTHENTICATED: "a valid key is needed",
    Rejection.FORBIDDEN: "this key does not allow that",
    Rejection.NOT_FOUND: "there is nothing here",
    Rejection.METHOD_NOT_ALLOWED: "this method is not allowed here",
    Rejection.TOO_SLOW: "the request did not arrive in time",
    Rejection.UNSUPPORTED: "this gateway does not support that",
    Rejection.UNEXPECTED: "what the request expects cannot be met",
    Rejection.HEAD_TOO_LARGE: "the headers are too large or too many",
}


def code_of(end: End, prefer_async: bool = False) -> Code:
    """The codes of one end; `prefer_async` is whether the client sent Prefer: respond-async."""
    match end:
        case Served() | Degraded():
            return _ANSWERED
        case Deferred():
            return _ACCEPTED if prefer_async else _DEFERRED
        case Refused():
            return _CODES[end.reason]
        case Rejection():
            return _CODES[end]
        case InvalidRequest():
            return _CODES[Rejection.INVALID]


def status_of(end: End, prefer_async: bool = False) -> int:
    """The HTTP status of one end."""
    return code_of(end, prefer_async).http


def words_of(end: Unanswered) -> str:
    """The end in words: fixed for whatever was judged, the problems for what a caller can mend."""
    match end:
        case Deferred():
            return "deferred to a person, who will answer at review_url"
        case Refused():
            return _WORDS[end.reason]
        case Rejection():
            return _WORDS[end]
        case InvalidRequest():
            shown = "; ".join(map(str, end.problems[:8]))
            return shown if len(end.problems) <= 8 else f"{shown}; and {len(end.problems) - 8} more"


def worst_row(outcomes: Sequence[Outcome]) -> Outcome:
    """The first of the rows that fell furthest; a refusal asks to wait as long as the longest of its kind."""
    worst = outcomes[0] if len(outcomes) == 1 else max(outcomes, key=severity)
    if not isinstance(worst, Refused):
        return worst
    alike = [o.retry_after_s for o in outcomes if isinstance(o, Refused) and o.reason == worst.reason]
    return replace(worst, retry_after_s=max((s for s in alike if s is not None), default=None))


def retry_after_s(end: End) -> int | None:
    """Whole seconds for Retry-After, where the code calls for one: at least 1."""
    if not isinstance(end, Refused) or _CODES[end.reason].http not in (429, 503):
        return None
    wait_s = end.retry_after_s
    if wait_s is None or math.isnan(wait_s):
        return 1
    return math.ceil(min(max(wait_s, 1.0), LONGEST_RETRY_S))


class Ending(NamedTuple):
    """What a caller is told of one end: how, one coarse reason, and by whom."""

    outcome: str
    reason: str
    by: str


def ending(end: End) -> Ending:
    match end:
        case Served():
            return Ending("served", _OK, end.by)
        case Degraded():
            return Ending("degraded", str(end.reason), end.by)
        case Deferred():
            return Ending("deferred", str(end.reason), BY_REVIEW)
        case Refused():
            return Ending("refused", str(end.reason), BY_NONE)
        case Rejection():
            return Ending("refused", str(end), BY_NONE)
        case InvalidRequest():
            return Ending("refused", str(Rejection.INVALID), BY_NONE)


class Stamp(NamedTuple):
    """What every reply names: the policy that judged (name@version#hash), its mode, and the decision."""

    policy: str
    mode: str
    decision_id: str


def parameters_of(end: Ending, policy: str, mode: str) -> dict[str, str]:
    """Five of the six flat fs_ parameters, none of them empty; the sixth is the decision id."""
    return {
        "fs_outcome": end.outcome,
        "fs_reason": end.reason,
        "fs_served_by": end.by or BY_NONE,
        "fs_policy": policy or BY_NONE,
        "fs_mode": mode or BY_NONE,
    }


def told(end: Ending, stamp: Stamp, urls: Sequence[str] = ()) -> dict[str, str]:
    """All the parameters that say how a request ended. `urls`: where its deferred rows will be answered."""
    parameters = parameters_of(end, stamp.policy, stamp.mode)
    parameters["fs_decision_id"] = stamp.decision_id or BY_NONE
    return parameters | {"fs_review_urls": ",".join(urls)} if urls else parameters


def header_of(parameter: str) -> str:
    """What a parameter is called as a header and as a trailer: `fs_mode` is `x-failsafe-mode`."""
    return parameter.replace("fs_", "x-failsafe-", 1).replace("_", "-")
