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
from gateway.core.row_limit import LOWEST
from gateway.protocol import metadata
from gateway.protocol.apparent_priority import apparent_priority
from gateway.protocol.endings import Rejection, Stamp
from gateway.protocol.infer_request import InferRequest
from gateway.protocol.rejected import RequestRejected as RequestRejected
from gateway.serving.gateway import Gateway
from gateway.serving.ids import Ids
from gateway.serving.loaded import LoadedDeployment
from gateway.serving.parsing import LargeBody, Parsing
from gateway.serving.release import ReleaseClock, next_point_s, shift_of
from gateway.serving.replicas import PeerReplicas
from gateway.serving.repository import Entry, NotReady, Repository

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

    received_s: Unix seconds; start_s: seconds of `time.perf_counter`; begun_s: loop seconds at which its
    first byte was read, from which its deadline counts; trace: its header `traceparent`; charges: what the
    budgets found for its first row.
    """

    caller: Caller
    gateway: Gateway
    loaded: LoadedDeployment
    decision_id: str
    received_s: float
    start_s: float
    begun_s: float
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
        if gateways and all(one.why_stopped for one in gateways):
            return "stopped: no model may answer"
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
        return gateway.loaded.stamp(decision_id)

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
            _index_entry(one)
            for one in entries
            if not ready_only or (isinstance(one, Gateway) and not one.why_stopped)
        ]

    def begin(
        self,
        caller: Caller,
        name: str,
        version: str | None,
        decision_id: str,
        trace: str | None,
        begun_s: float,
    ) -> Call:
        """A request for inference, of which the first row is charged. begun_s: as in `Call`.

        Raises: RequestRejected, also for one to a stopped model, or of which a budget refuses that row: these
                are recorded; and for one for which there is no room.
        """
        received_s, start_s = time.time(), time.perf_counter()
        gateway = self.model(caller, name, version)
        loaded = gateway.loaded
        refused = gateway.refused_stopped(decision_id)  # before any budget is charged
        charges = [] if refused else charge_first_row(loaded.pipeline.budgets, caller.principal)
        call = Call(
            caller, gateway, loaded, decision_id, received_s, start_s, begun_s, _trace(trace), charges
        )
        refused = refused or gateway.refused_unread(decision_id, charges, loaded.pipeline.policy)
        if refused is not None:
            stamp = _record(call, [refused], time.perf_counter() - start_s)
            gateway.statistics.add([refused], received_s, time.perf_counter() - start_s)
            assert isinstance(refused.outcome, Refused)
            raise RequestRejected(refused.outcome, stamp=stamp)
        limit = gateway.batcher.limit
        if limit.under_way >= limit.rows:
            _refuse_overload(call, priority=1)
        return call

    def refuse_hopeless(self, call: Call, body: bytes) -> None:
        """Raises RequestRejected, before the body is parsed, where its rows could not be answered in time.

        So it is if the deadline has passed, or if there is no room for rows of the priority that the body
        seems to have: where a text in it only looks like one, its caller wrote that text.
        """
        limit = call.gateway.batcher.limit
        if now_s() > call.begun_s + call.loaded.policy.deadline_s:
            raise RequestRejected(Refused(Reason.DEADLINE), room=call.gateway.brownout.room_of(LOWEST))
        if limit.under_way >= limit.nearly_full_at:
            _refuse_overload(call, apparent_priority(body))

    def under_policy_in_force(self, call: Call) -> Call:
        """The same call under the policy in force now, from which all of its answer then comes.

        Under the one that it began with if a reload has changed what a request or an answer looks like since:
        the body was read by that.
        """
        loaded = call.gateway.loaded
        if loaded is call.loaded or loaded.contract != call.loaded.contract:
            return call
        return call._replace(loaded=loaded)

    def refuse_indebted(self, caller: Caller) -> None:
        """Raises RequestRejected for a caller that has sent too many invalid bodies lately."""
        if (refused := self.meter.refusal(caller.principal)) is not None:
            raise RequestRejected(refused)

    async def parse(self, call: Call, how: dict[str, Any], body: bytes) -> InferRequest:
        """The request in a large body, parsed outside the event loop. Raises as `Parsing.parse` does."""
        large = LargeBody(call.caller.principal, call.loaded.contract, how, body)
        return await self.parsing.parse(large, call.begun_s + call.loaded.policy.deadline_s - now_s())

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

        Args:    time_limit_s: seconds from the first byte of the request until its deadline.
        Raises:  RequestRejected for a model that was unloaded meanwhile.

        What is stopped meanwhile is withheld, and is recorded so.
        """
        gateway, step_s = call.gateway, _release_step_s(call)
        taken_s = 0.0 if step_s is None else time.monotonic()
        if gateway.retired:  # unloaded while the body arrived
            raise RequestRejected(
                Refused(Reason.UNAVAILABLE, RETRY_S), f"model {gateway.name!r} was unloaded"
            )
        batch = _batch_of(call, asked, call.begun_s + time_limit_s)
        decisions = await gateway.decide(batch, asked.priority or 1)
        elapsed_s = time.perf_counter() - call.start_s
        if step_s is not None:
            grid_s = taken_s + step_s * shift_of(asked.inputs.values(), self._secret)
            monotonic_s = time.monotonic()
            until_s = monotonic_s + call.begun_s + time_limit_s - now_s()
            due_s = next_point_s(grid_s, monotonic_s, step_s, until_s)
            try:
                await self._clock.sleep_until(due_s)
            except asyncio.CancelledError:
                _record(call, decisions, elapsed_s)
                gateway.withdraw(deferred_ids(decisions))
                raise
        if (stops := gateway.stops).why or stops.rungs:
            decisions = gateway.withhold_stopped(decisions)
        stamp = _record(call, decisions, elapsed_s)
        gateway.statistics.add(decisions, call.received_s, time.perf_counter() - call.start_s)
        return decisions, stamp


def _refuse_overload(call: Call, priority: int) -> None:
    """Raises RequestRejected if there is no room for one more row of this caller and priority."""
    gateway, caller, pipeline = call.gateway, call.caller.principal, call.loaded.pipeline
    limit, left_s = gateway.batcher.limit, call.begun_s + call.loaded.policy.deadline_s - now_s()
    if limit.has_room(caller, 1, left_s, priority):
        return
    if not gateway.brownout.has_room(pipeline, caller, 1, left_s, priority):
        refused = Refused(Reason.UNAVAILABLE, limit.refuse(1))
        raise RequestRejected(refused, room=gateway.brownout.room_of(priority))


def _release_step_s(call: Call) -> float | None:
    """Seconds between two points at which the reply may be released; None if it may be at once."""
    step_ms = call.loaded.policy.serving.release_grid_ms
    return None if not step_ms or call.caller.has_any(EXPLAINED_SCOPES) else step_ms / 1e3


def _batch_of(call: Call, asked: InferRequest, deadline_s: float) -> Batch:
    """The rows of a request. One row has the request's id, several have it with their number."""
    id_, rows = call.decision_id, asked.rows
    ids = (id_,) if rows == 1 else tuple(f"{id_}.{i}" for i in range(rows))
    principals, deadlines_s = (call.caller.principal,) * rows, (deadline_s,) * rows
    pipeline = call.loaded.pipeline
    return Batch(ids, principals, asked.inputs, deadlines_s, charges=call.charges, pipeline=pipeline)


def _index_entry(entry: Entry) -> dict[str, str]:
    if isinstance(entry, NotReady):
        return metadata.index_entry(entry.name, entry.version, entry.reason)
    why = "it is stopped" if entry.why_stopped else ""
    return metadata.index_entry(entry.name, entry.loaded.contract.version, why)


def _record(call: Call, decisions: list[Decision], elapsed_s: float) -> Stamp:
    """Records a judged request; its reply's stamp."""
    loaded = call.loaded
    stamp = loaded.stamp(call.decision_id)
    ended = without_outputs(decisions)
    call.gateway.record(
        RequestRecord(
            call.decision_id,
            call.caller.principal,
            stamp.policy,
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
