"""The data plane without a protocol: identifies the caller, checks access, decides and records a request.

HTTP and gRPC take the same steps here, so that the same row gets the same outcome over both:

    identify ── begin ── acquire_slot ── (the protocol reads the tensors) ── judge ── (it writes the reply)

A request that ends before it is judged raises `RequestRejected`.
"""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Final, NamedTuple

from gateway.access.callers import Caller
from gateway.access.in_flight import InFlight
from gateway.core.batch import Batch
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Refused
from gateway.core.errors import InvalidRequest, Problem
from gateway.core.record import RequestRecord
from gateway.protocol.endings import Rejection, Stamp
from gateway.protocol.infer_request import InferRequest
from gateway.serving.gateway import Gateway, LoadedDeployment
from gateway.serving.ids import Ids
from gateway.serving.replicas import PeerReplicas

LONGEST_WAIT_S = 30
TIMEOUT_HEADER = "x-request-timeout-seconds"

PUBLIC: Final = None
"""No key is needed."""
ALWAYS_FORBIDDEN: frozenset[str] = frozenset()
"""No key has a scope that allows it."""
INFERENCE_SCOPES = frozenset({"infer"})
METADATA_SCOPES = frozenset({"infer", "metadata"})
OWN_RESULT_SCOPES = frozenset({"infer", "explain"})


class RequestRejected(Exception):
    """The request has ended before it was judged. `headers`: more of them for its reply, such as Allow."""

    def __init__(self, end: Rejection | Refused, error: str = "", **headers: str) -> None:
        super().__init__(str(end))
        self.end, self.error, self.headers = end, error, headers


class Call(NamedTuple):
    """One request for inference: its caller, the deployment that it calls, and its start.

    received_s: Unix seconds; start_s: seconds of `time.perf_counter`.
    """

    caller: Caller
    loaded: LoadedDeployment
    decision_id: str
    received_s: float
    start_s: float


class DataPlane:
    """One gateway as callers see it. `ids` gives decision ids."""

    def __init__(self, gateway: Gateway, peers: PeerReplicas) -> None:
        self.gateway = gateway
        self.peers = peers
        self.ids = Ids()

    def stamp(self, decision_id: str) -> Stamp:
        """The stamp of a reply to a request that was not judged."""
        loaded = self.gateway.loaded
        return Stamp(loaded.tag, loaded.policy.mode, decision_id)

    def identify(self, key: str | None, address: str, scopes: frozenset[str]) -> Caller:
        """The caller, if its key has one of the scopes. Raises RequestRejected."""
        caller = self.gateway.callers.identify(key, address)
        if caller is None:
            raise RequestRejected(Rejection.UNAUTHENTICATED)
        if not caller.has_any(scopes):
            raise RequestRejected(Rejection.FORBIDDEN)
        return caller

    def model(self, caller: Caller, name: str, version: str | None) -> LoadedDeployment:
        """The loaded deployment, if it has this model and the caller may use it. Raises RequestRejected."""
        loaded = self.gateway.loaded
        contract = loaded.contract
        if name != contract.model or (version and version != contract.version):
            asked_for = f"{name}/{version}" if version else name
            what = f"Request for unknown model: {asked_for[:256]!r} is not found"
            raise RequestRejected(Rejection.NOT_FOUND, what)
        if not caller.may_use(name):
            raise RequestRejected(Rejection.FORBIDDEN)
        return loaded

    def begin(self, caller: Caller, name: str, version: str | None, decision_id: str) -> Call:
        """A request for inference, timed from now. Raises RequestRejected."""
        received_s, start_s = time.time(), time.perf_counter()
        return Call(caller, self.model(caller, name, version), decision_id, received_s, start_s)

    def acquire_slot(self, caller: Caller) -> InFlightSlot:
        """A slot among the requests in flight, for a `with` block. Raises RequestRejected if none is free."""
        refused = self.gateway.in_flight.acquire(caller.principal)
        if refused is not None:
            raise RequestRejected(refused)
        return InFlightSlot(self.gateway.in_flight, caller.principal)

    async def judge(
        self, call: Call, asked: InferRequest, time_limit_s: float
    ) -> tuple[list[Decision], Stamp]:
        """One decision a row, recorded, and the reply's stamp. time_limit_s: seconds until the deadline."""
        id_, loaded = call.decision_id, call.loaded
        deadline_s = now_s() + time_limit_s
        ids = (id_,) if asked.rows == 1 else tuple(f"{id_}.{i}" for i in range(asked.rows))
        principals = (call.caller.principal,) * asked.rows
        batch = Batch(ids, principals, asked.inputs, (deadline_s,) * asked.rows)
        decisions = await self.gateway.decide(batch, asked.priority or 1)
        elapsed_s = time.perf_counter() - call.start_s
        policy = decisions[0].policy or loaded.tag
        judged = loaded if policy == loaded.tag else self.gateway.loaded  # a reload may have come between
        stamp = Stamp(policy, judged.policy.mode, id_)
        self.gateway.record(
            RequestRecord(
                id_,
                call.caller.principal,
                policy,
                stamp.mode,
                call.received_s,
                elapsed_s,
                tuple(decisions),
            )
        )
        return decisions, stamp


class InFlightSlot:
    """A slot of the in-flight limit, released at the end of the `with` block."""

    __slots__ = ("_in_flight", "_principal")

    def __init__(self, in_flight: InFlight, principal: str) -> None:
        self._in_flight, self._principal = in_flight, principal

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_flight.release(self._principal)


def time_limit_s(
    longest_s: float, timeout_us: int | None, header: str | None, left_s: float | None = None
) -> float:
    """Seconds until the request's deadline: a client may only shorten that of the policy.

    Args:    timeout_us: of the protocol; header: X-Request-Timeout-Seconds; left_s: of a gRPC deadline.
    Raises:  InvalidRequest for a header that is no positive number.
    """
    limits_s = [longest_s]
    if timeout_us:
        limits_s.append(timeout_us / 1e6)
    if left_s is not None:
        limits_s.append(max(left_s, 0.0))
    if header is not None:
        limits_s.append(_seconds(header))
    return min(limits_s)


def _seconds(header: str) -> float:
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidRequest([Problem(TIMEOUT_HEADER, "must be a positive number of seconds")])
    return seconds


def preferred_wait_s(prefer: str) -> float:
    """The N of `Prefer: wait=N`: seconds, at most 30; 0 without one."""
    for part in prefer.replace(";", ",").split(","):
        name, _, value = part.strip().partition("=")
        if name == "wait":
            return float(bounded_natural(value, LONGEST_WAIT_S))
    return 0.0


def bounded_natural(text: str, most: int) -> int:
    """A natural number in a header, at most `most`; 0 for any other text."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return 0
    return min(int(text), most) if len(text) <= 18 else most
