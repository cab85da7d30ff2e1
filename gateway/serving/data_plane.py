"""The data plane without a protocol: identifies the caller, checks access, decides and records a request.

HTTP and gRPC take the same steps here, so that the same row gets the same outcome over both:

    identify ── begin ── acquire_slot ── (the protocol reads the tensors) ── judge ── (it writes the reply)

A request that ends before it is judged raises `RequestRejected`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from types import TracebackType
from typing import Any, Final, NamedTuple

from gateway.access.callers import Caller, account_of
from gateway.access.in_flight import RETRY_S, InFlight
from gateway.access.lookup_rate import LookupRate
from gateway.access.metering import ParseMeter
from gateway.core.batch import Batch
from gateway.core.budget import Charges, charge_first_row
from gateway.core.deadline import now_s
from gateway.core.decision import Decision, Reason, Refused, deferred_ids
from gateway.core.record import RequestRecord, without_outputs
from gateway.protocol import metadata
from gateway.protocol.endings import Rejection, Stamp
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.rejected import RequestRejected as RequestRejected
from gateway.serving.gateway import Gateway, LoadedDeployment
from gateway.serving.ids import Ids
from gateway.serving.parsing import LargeBody, ParsedBody, Parsing
from gateway.serving.release import ReleaseClock, next_point_s, shift_of
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import NotReady, Repository

PUBLIC: Final = None
"""No key is needed."""
ALWAYS_FORBIDDEN: frozenset[str] = frozenset()
"""No key has a scope that allows it."""
INFERENCE_SCOPES = frozenset({"infer"})
METADATA_SCOPES = frozenset({"infer", "metadata"})
OWN_RESULT_SCOPES = frozenset({"infer", "explain"})
EXPLAINED_SCOPES = frozenset({"explain"})
"""Its callers may read what each guard found and how long it took: no release grid hides that from them."""
LONGEST_TRACE = 64
"""Characters of a `traceparent` that is kept; one of version 00 has 55."""
LOADING = (
    "models are loaded and unloaded on the administration plane: POST /models/NAME/load or /unload there"
)
"""Why a request with any key is forbidden where no scope allows it."""


class Call(NamedTuple):
    """One request for inference: its caller, the deployment that it calls, and its start.

    received_s: Unix seconds; start_s: seconds of `time.perf_counter`; trace: its header `traceparent`;
    charges: what the budgets found for its first row.
    """

    caller: Caller
    gateway: Gateway
    loaded: LoadedDeployment
    decision_id: str
    received_s: float
    start_s: float
    trace: str
    charges: Charges


class DataPlane:
    """The gateways of a process as callers see them. `close` it at the end.

    ids: gives decision ids; meter: of what bodies cost before they are judged; parsing: of large ones.
    """

    def __init__(self, repository: Repository, peers: PeerReplicas) -> None:
        self.repository = repository
        self.peers = peers
        self.ids = Ids()
        self._lookups = LookupRate()
        self.meter = ParseMeter()
        self.parsing = Parsing(self.meter)
        self.draining = False
        self._clock, self._secret = ReleaseClock(), secrets.token_bytes(16)

    def why_not_ready(self, gateway: Gateway | None = None) -> str:
        """Why the replica, or this model of it, is not ready; empty if it is."""
        gateways = list(self.repository.gateways.values()) if gateway is None else [gateway]
        if self.draining:
            return "the gateway is about to end"
        if lost := [one.name for one in gateways if one.lost]:
            return f"calls of {', '.join(lost)} did not come back: this replica has to be replaced"
        return "" if gateways else "no model is ready"

    def close(self) -> None:
        """Ends the process that parses large bodies, and the thread that releases answers."""
        self.parsing.close()
        self._clock.close()

    def stamp(self, decision_id: str, gateway: Gateway | None = None) -> Stamp:
        """The stamp of a reply to a request that was not judged.

        gateway: of the model that was called; without it, that of the only deployment, if there is one.
        """
        gateway = gateway or self.repository.only
        if gateway is None:
            return Stamp("", "", decision_id)
        loaded = gateway.loaded
        return Stamp(loaded.tag, loaded.policy.mode, decision_id)

    def identify(self, key: str | None, address: str, scopes: frozenset[str]) -> Caller:
        """The caller, if its key has one of the scopes. Raises RequestRejected.

        address: of the peer, for callers without a key; empty if a proxy sent the request.
        """
        for callers in self.repository.callers:
            caller = callers.identify(key, address)
            if caller is not None:
                break
        else:
            raise RequestRejected(Rejection.UNAUTHENTICATED)
        if not caller.has_any(scopes):
            raise RequestRejected(Rejection.FORBIDDEN, "" if scopes else LOADING)
        return caller

    def model(self, caller: Caller, name: str, version: str | None) -> Gateway:
        """The gateway of this model, if it is ready and the caller may use it. Raises RequestRejected."""
        gateway = self.repository.gateways.get(name)
        if gateway is None:
            raise self._not_ready(caller, name, version)
        if version and version != gateway.loaded.contract.version:
            raise _unknown_model(name, version)
        if not caller.may_use(name):
            raise RequestRejected(Rejection.FORBIDDEN)
        return gateway

    def _not_ready(self, caller: Caller, name: str, version: str | None) -> RequestRejected:
        """Why no gateway has this name."""
        entry = self.repository.entries.get(name)
        if entry is None:
            return _unknown_model(name, version)
        if not caller.may_use(name):
            return RequestRejected(Rejection.FORBIDDEN)
        assert isinstance(entry, NotReady)
        return RequestRejected(
            Refused(Reason.UNAVAILABLE, RETRY_S), f"model {name!r} is not ready: {entry.reason}"
        )

    def is_ready(self, caller: Caller, name: str, version: str | None) -> bool:
        """Whether this model is ready. Raises RequestRejected for one that the caller may not use."""
        if isinstance(self.repository.entries.get(name), NotReady) and caller.may_use(name):
            return False
        return not self.why_not_ready(self.model(caller, name, version))

    def usable(self, caller: Caller) -> list[Gateway]:
        """The gateways that are ready and that the caller may use."""
        return [one for name, one in self.repository.gateways.items() if caller.may_use(name)]

    def index(self, caller: Caller, ready_only: bool) -> list[dict[str, str]]:
        """The models that the caller may use, as the repository's index lists them."""
        entries = [one for name, one in self.repository.entries.items() if caller.may_use(name)]
        return [
            metadata.index_entry(one.name, one.loaded.contract.version)
            if isinstance(one, Gateway)
            else metadata.index_entry(one.name, one.version, one.reason)
            for one in entries
            if isinstance(one, Gateway) or not ready_only
        ]

    def begin(
        self, caller: Caller, name: str, version: str | None, decision_id: str, trace: str | None
    ) -> Call:
        """A request for inference, timed from now, of which the first row is charged.

        Raises: RequestRejected, also for one of which a budget refuses that row: it is recorded.
        """
        received_s, start_s = time.time(), time.perf_counter()
        gateway = self.model(caller, name, version)
        loaded = gateway.loaded
        charges = charge_first_row(loaded.pipeline.budgets, caller.principal)
        call = Call(caller, gateway, loaded, decision_id, received_s, start_s, _trace(trace), charges)
        refused = gateway.refused_unread(decision_id, charges)
        if refused is not None:
            stamp = _record(call, [refused])
            gateway.statistics.add([refused], received_s, time.perf_counter() - start_s)
            assert isinstance(refused.outcome, Refused)
            raise RequestRejected(refused.outcome, stamp=stamp)
        return call

    def refuse_indebted(self, caller: Caller) -> None:
        """Raises RequestRejected for a caller that has sent too many invalid bodies lately."""
        if (refused := self.meter.refusal(caller.principal)) is not None:
            raise RequestRejected(refused)

    async def parse(self, call: Call, how: dict[str, Any], body: bytes) -> ParsedBody:
        """The request in a large body, parsed outside the event loop. Raises as `Parsing.parse` does."""
        large = LargeBody(call.caller.principal, call.loaded.contract, how, body)
        return await self.parsing.parse(large, call.loaded.policy.deadline_s)

    def acquire_slot(self, caller: Caller) -> InFlightSlot:
        """A slot among the requests in flight, for a `with` block. Raises RequestRejected if none is free."""
        in_flight = self.repository.in_flight
        refused = in_flight.acquire(caller.principal)
        if refused is not None:
            raise RequestRejected(refused)
        return InFlightSlot(in_flight, caller.principal)

    def charge_lookup(self, caller: Caller) -> None:
        """Counts one look-up of a decision or a review. Raises RequestRejected for one too many."""
        refused = self._lookups.charge(account_of(caller.principal), time.monotonic())
        if refused is not None:
            raise RequestRejected(refused)

    async def judge(
        self, call: Call, asked: InferRequest, time_limit_s: float
    ) -> tuple[list[Decision], Stamp]:
        """One decision a row, recorded, and the reply's stamp, when the reply may be released.

        Args:    time_limit_s: seconds until the deadline.
        Raises:  RequestRejected for a model that was unloaded meanwhile.
        """
        gateway, step_s = call.gateway, _release_step_s(call)
        taken_s = 0.0 if step_s is None else time.monotonic()
        if gateway.retired:  # unloaded while the body arrived
            raise RequestRejected(
                Refused(Reason.UNAVAILABLE, RETRY_S), f"model {gateway.name!r} was unloaded"
            )
        batch = _batch_of(call, asked, now_s() + time_limit_s)
        decisions = await gateway.decide(batch, asked.priority or 1)
        stamp = _record(call, decisions)
        if step_s is not None:
            grid_s = taken_s + step_s * shift_of(asked.inputs.values(), self._secret)
            due_s = next_point_s(grid_s, time.monotonic(), step_s, taken_s + time_limit_s)
            try:
                await self._clock.sleep_until(due_s)
            except asyncio.CancelledError:
                gateway.withdraw(deferred_ids(decisions))
                raise
        gateway.statistics.add(decisions, call.received_s, time.perf_counter() - call.start_s)
        return decisions, stamp


def _release_step_s(call: Call) -> float | None:
    """Seconds between two points at which the reply may be released; None if it may be at once."""
    step_ms = call.loaded.policy.serving.release_grid_ms
    return None if not step_ms or call.caller.has_any(EXPLAINED_SCOPES) else step_ms / 1e3


def _batch_of(call: Call, asked: InferRequest, deadline_s: float) -> Batch:
    """The rows of a request. One row has the request's id, several have it with their number."""
    id_, rows = call.decision_id, asked.rows
    ids = (id_,) if rows == 1 else tuple(f"{id_}.{i}" for i in range(rows))
    return Batch(
        ids, (call.caller.principal,) * rows, asked.inputs, (deadline_s,) * rows, charges=call.charges
    )


def _record(call: Call, decisions: list[Decision]) -> Stamp:
    """Records a judged request; its reply's stamp."""
    loaded, elapsed_s = call.loaded, time.perf_counter() - call.start_s
    policy = decisions[0].policy or loaded.tag
    judged = loaded if policy == loaded.tag else call.gateway.loaded  # a reload may have come between
    stamp = Stamp(policy, judged.policy.mode, call.decision_id)
    ended = without_outputs(decisions)
    call.gateway.record(
        RequestRecord(
            call.decision_id,
            call.caller.principal,
            policy,
            stamp.mode,
            call.received_s,
            elapsed_s,
            ended,
            call.trace,
        )
    )
    return stamp


def _trace(header: str | None) -> str:
    """The header `traceparent` if it can be one: a record keeps it, so a longer text is not kept."""
    return header if header is not None and len(header) <= LONGEST_TRACE else ""


def _unknown_model(name: str, version: str | None) -> RequestRejected:
    asked_for = f"{name}/{version}" if version else name
    what = f"Request for unknown model: {asked_for[:256]!r} is not found"
    return RequestRejected(Rejection.NOT_FOUND, what)


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
