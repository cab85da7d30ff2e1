"""What replies say to browsers for pages of the origins that `serving.cors` names (the Fetch standard, CORS).

The origin is named, not `*`, also where every origin is allowed: a reply to one says nothing of others. No
cookie has a meaning here, so credentials are not allowed; a page sends its key in a header.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from gateway.listener.messages import Admitted, AnswerBody, Reply, Request

METHODS = b"GET, HEAD, POST, OPTIONS"
HEADERS = (
    b"authorization, x-api-key, content-type, content-encoding, inference-header-content-length, prefer, "
    b"x-request-timeout-seconds, traceparent, tracestate"
)
"""Of requests."""
EXPOSED = (
    b"inference-header-content-length, location, preference-applied, retry-after, x-failsafe-outcome, "
    b"x-failsafe-reason, x-failsafe-served-by, x-failsafe-policy, x-failsafe-mode, x-failsafe-decision-id"
)
"""Headers of replies that pages may read."""
MAX_AGE_S = 600
"""How long a browser keeps the reply to a preflight request."""


def preflight_headers(request: Request) -> bytes:
    """What the reply to a preflight request says of the requests that may follow; nothing to any other."""
    if b"access-control-request-method" not in request.headers:
        return b""
    return (
        b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\n"
        b"access-control-max-age: %d\r\n" % (METHODS, HEADERS, MAX_AGE_S)
    )


def share_step(step: Admitted | Reply, origin: bytes) -> Admitted | Reply:
    """The same step, with a reply that pages of this origin may read."""
    if isinstance(step, Reply):
        return share_reply(step, origin)
    return Admitted(step.body_limit, _shared(step.answer, origin))


def share_reply(reply: Reply, origin: bytes, more: bytes = b"") -> Reply:
    """The same reply for pages of this origin. more: further headers."""
    lines = b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n" % (origin, EXPOSED)
    vary = b"" if b"vary: " in reply.headers else b"vary: origin\r\n"
    headers = reply.headers.replace(b"vary: accept-encoding", b"vary: accept-encoding, origin")
    return reply._replace(headers=headers + lines + vary + more)


def _shared(answer: AnswerBody, origin: bytes) -> AnswerBody:
    async def share_awaited(answering: Coroutine[Any, Any, Reply | None]) -> Reply | None:
        reply = await answering
        return None if reply is None else share_reply(reply, origin)

    def answer_shared(body: bytes) -> Coroutine[Any, Any, Reply | None] | Reply:
        reply = answer(body)
        return share_reply(reply, origin) if isinstance(reply, Reply) else share_awaited(reply)

    return answer_shared
