"""The data plane over HTTP, as the listener calls it.

Everything that can be wrong with a request is found before it reaches the pipeline, and every outcome of the
pipeline has one row in `gateway/protocol/endings.py`. Nothing malformed gets a 5xx; no client without a key
gets more than health and the server's metadata, nor has its body read.

    admit(head) ── Reply: rejected, or answered without a body
                └─ Admitted: how large a body is read, and what answers it

HEAD is answered as GET; the listener leaves out the body. OPTIONS says which methods a path has, and to a
page of an origin that the policy allows, what it may send (`cross_origin.py`).
"""

from __future__ import annotations

from gateway.access.callers import Caller
from gateway.access.credentials import InvalidCredential, sent_key
from gateway.access.in_flight import RETRY_S
from gateway.access.proxies import is_forwarded
from gateway.access.site import Refusal, Site
from gateway.core.decision import Reason, Refused
from gateway.http.cross_origin import preflight_headers, share_reply, share_step
from gateway.http.replies import reply_allow, reply_unanswered
from gateway.http.route_table import ROUTES
from gateway.http.routes import RoutedRequest, Router
from gateway.listener.messages import Admitted, Fault, Reply, Request, parts_of
from gateway.protocol.endings import Rejection, UnansweredEnd
from gateway.serving.data_plane import PUBLIC, DataPlane, RequestRejected

UNIDENTIFIED = Caller("unidentified")
"""The caller of a public route, whose key is not looked at."""
FAULT_ENDS: dict[Fault, UnansweredEnd] = {
    Fault.INVALID: Rejection.INVALID,
    Fault.TOO_LARGE: Rejection.TOO_LARGE,
    Fault.TOO_SLOW: Rejection.TOO_SLOW,
    Fault.UNSUPPORTED: Rejection.UNSUPPORTED,
    Fault.UNMET_EXPECTATION: Rejection.UNEXPECTED,
    Fault.HEAD_TOO_LARGE: Rejection.HEAD_TOO_LARGE,
    Fault.UNAVAILABLE: Refused(Reason.UNAVAILABLE, retry_after_s=1.0),
}
"""How a request ends that the listener itself refuses."""


class HttpHandler:
    """The `Handler` of the listener on the data plane's port. site: which requests are addressed to it."""

    def __init__(self, plane: DataPlane, site: Site) -> None:
        self.plane, self._site = plane, site
        base = plane.repository.settings.policy.serving.base_path
        self._router = Router(ROUTES, parts_of(base))

    def admit(self, request: Request) -> Admitted | Reply:
        """The reply to a request that is rejected or needs no body; else what reads and answers its body.

        Cost: 6 us for an inference request with a key.
        """
        headers = request.headers
        refusal = self._site.refuse(headers)
        if refusal is not None:
            return self._refuse_site(refusal)
        if b"origin" not in headers or not self._site.shares_with(origin := headers[b"origin"]):
            return self._options(request) if request.method == "OPTIONS" else self._admit(request)
        if request.method == "OPTIONS":
            return share_reply(self._options(request), origin, preflight_headers(request))
        return share_step(self._admit(request), origin)

    def _admit(self, request: Request) -> Admitted | Reply:
        decision_id = self.plane.ids.new()
        try:
            route, path = self._router.find(request)
            caller = UNIDENTIFIED
            if route.scopes is not PUBLIC:
                caller = self._identify(request, route.scopes)
                if not request.count_connection(caller.principal):
                    raise RequestRejected(Refused(Reason.RATE_LIMITED, RETRY_S))
            return route.handler(RoutedRequest(self.plane, request, decision_id, path, caller))
        except RequestRejected as rejected:
            stamp = rejected.stamp or self.plane.stamp(decision_id)
            return reply_unanswered(
                rejected.end, stamp, error=rejected.error, headers=rejected.headers, room=rejected.room
            )

    def _options(self, request: Request) -> Reply:
        """Which methods the path has. No key is needed: the paths are those of the protocol."""
        try:
            return reply_allow(self._router.methods(request.parts))
        except RequestRejected as rejected:
            return reply_unanswered(rejected.end, self.plane.stamp(self.plane.ids.new()))

    def _refuse_site(self, refusal: Refusal) -> Reply:
        stamp = self.plane.stamp(self.plane.ids.new())
        return reply_unanswered(refusal.end, stamp, error=refusal.error)

    def _identify(self, request: Request, scopes: frozenset[str]) -> Caller:
        """The caller of a request for a route that needs one. Raises RequestRejected."""
        try:
            key = sent_key(request.header(b"authorization"), request.header(b"x-api-key"))
        except InvalidCredential as error:
            raise RequestRejected(Rejection.UNAUTHENTICATED, str(error)) from None
        unproxied = key is None and not is_forwarded(request.headers)
        return self.plane.identify(key, request.address if unproxied else "", scopes)

    def refuse(self, fault: Fault, error: str = "") -> Reply:
        """The reply to bytes that are no request which can be routed."""
        return reply_unanswered(FAULT_ENDS[fault], self.plane.stamp(self.plane.ids.new()), error=error)
