"""One replica's gateway: a compiled pipeline, the state that outlives it, and the swap on reload.

Every protocol calls `decide`. `reload` builds and tries the new pipeline first and then swaps one
reference: a policy that does not compile leaves the old pipeline exactly as it was, and says why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fallbacks.breaker import Breaker, BreakerState
from gateway.core.assessment import Findings
from gateway.core.batch import Batch
from gateway.core.batch_size import BatchSize
from gateway.core.batching import Batcher
from gateway.core.brownout import Brownout, stepped_down
from gateway.core.budget import Admission, Charges, admit, refused_unread, settle
from gateway.core.decision import Decision, deferred_ids
from gateway.core.errors import ArtifactError, PolicyError
from gateway.core.pipeline import BatchResult, Pipeline, Review
from gateway.core.record import RequestRecord
from gateway.core.row_limit import RowLimit
from gateway.deployment.artifacts import Artifacts, load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.deployment.proof import prove
from gateway.deployment.signature import check_signature
from gateway.policy.kinds import AnyBudget
from gateway.policy.observation import observed_at
from gateway.policy.schema import Policy
from gateway.protocol.statistics import Statistics
from gateway.serving.agreement import needs_restart
from gateway.serving.host import Host, in_own_thread, make_state_folder, open_review
from gateway.serving.isolated_file import convert_isolated
from gateway.serving.loaded import LoadedDeployment
from gateway.serving.model_watch import watch_models
from gateway.serving.observation_end import enforce_when_due, enforced_when_due, seconds_to_next_end
from gateway.serving.read_folder import ReadFolder
from gateway.serving.reloads import Reloads
from gateway.serving.review import QueuedReview
from gateway.serving.shared_budgets import Asked, Key, SharedBudgets
from gateway.serving.stops import ModelStops
from gateway.serving.versions import keep_version
from gateway.serving.withhold import STOPPED, all_stopped, withhold
from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.metrics import Telemetry
from gateway.telemetry.running_mark import RunningMark, change_in_thread, note_killed

WITHDRAW_WITHIN_S = 2.0
"""How long the end of a gateway waits until rows are withdrawn from a review queue that does not answer."""
log = logging.getLogger(__name__)


class Gateway:
    """Open one with `Gateway.open`; `start` it on the event loop that will serve; `close` it at the end.

    retired: whether it has been unloaded; it then judges no further request. reloads: how they went;
    read_folder: what the latest of them has read. expected: the policy that Ray's operator expects to be in
    force, a hash or a tag; empty for any.
    """

    def __init__(self, deployment: Deployment, review: Review | None, host: Host) -> None:
        policy = deployment.policy
        self.folder = deployment.folder
        self.state = host.state or deployment.var
        self.latch = host.latch
        convert_isolated(self.state, self.latch.file, policy.name)
        self.latch.look()
        self.replica = host.replica
        self.started_s = time.time()
        self.retired = False
        self.expected = ""
        self.callers = host.callers
        self.in_flight = host.in_flight
        self.review = review
        self._alone, self._now = host.alone, host.now
        self.budgets = SharedBudgets(policy.name, host.ledgers)
        self.reloads, self.read_folder = Reloads(), ReadFolder(self.folder, policy)
        self.loaded = self._load(deployment)
        self._stops = self.latch.now, self.latch.now.of(policy.name)
        self.telemetry = Telemetry(policy.name, self.replica)
        path = self.state / f"decisions-{self.replica}.jsonl"
        self.statistics = Statistics()
        serving = policy.serving
        self._log = JsonLinesSink(path, keep_bytes=serving.max_audit_bytes, siblings="decisions-*.jsonl")
        self.audit = Audit([self._log, self.telemetry])
        self.brownout, self.batcher = self._queues(policy)
        self._tasks: list[asyncio.Task[None]] = []
        self._keeping: asyncio.Task[None] | None = None
        self._retired: list[Artifacts] = []
        note_killed(self.state)
        self._running = RunningMark(path)

    @classmethod
    def open(cls, folder: Path) -> Gateway:
        """Opens a deployment that is alone in its process. Raises PolicyError or ArtifactError; blocks."""
        deployment = Deployment.read(folder)
        return cls.of(deployment, Host.of(deployment))

    @classmethod
    def of(cls, deployment: Deployment, host: Host) -> Gateway:
        """Loads, verifies and compiles a deployment. Raises PolicyError or ArtifactError; blocks."""
        make_state_folder(host.state or deployment.var)
        review = open_review(deployment, host.state)
        try:
            return cls(deployment, review, host)
        except BaseException:
            if isinstance(review, QueuedReview):
                review.store.close()
            raise

    @property
    def name(self) -> str:
        """The name of the deployment, and of its model on the wire."""
        return self.loaded.policy.name

    @property
    def lost(self) -> bool:
        """Whether a model cannot answer again in this process (`LoadedModel.lost`)."""
        return any(model.lost for model in self.loaded.artifacts.models.values())

    @property
    def stops(self) -> ModelStops:
        """What is stopped of the model now. Cost: 0.1 us."""
        now = self.latch.now
        if self._stops[0] is not now:
            self._stops = now, now.of(self.loaded.policy.name)
        return self._stops[1]

    @property
    def why_stopped(self) -> str:
        """Why no rung may answer; empty if one may."""
        stops = self.stops
        if not stops.why and stops.rungs.issuperset(rung.name for rung in self.loaded.policy.rungs):
            return "each of its rungs is stopped"
        return stops.why

    def apply_stops(self) -> None:
        """Takes the models of stopped rungs out of service, and puts those of the others back."""
        _isolate_stopped(self.loaded.breakers, self.stops)

    def _load(self, deployment: Deployment) -> LoadedDeployment:
        check_signature(deployment, os.environ)
        self._refuse_ledgers(deployment)
        policy, artifacts = deployment.policy, load_artifacts(deployment, self.state)
        breakers: dict[str, Breaker] = {}
        budgets: dict[Key, Asked] = {}
        try:
            shared, callers = partial(self.budgets.share, draft=budgets), self.callers
            stores = Stores(self.review, callers.rate_of, breakers, callers.tier_of, shared)
            observed = observed_at(policy.guards, self._now())
            pipeline = compile_policy(policy, artifacts, stores, observed)
        except ArtifactError:
            artifacts.close()
            raise
        _isolate_stopped(breakers, self.latch.now.of(policy.name))
        proof = prove(deployment, pipeline)
        contract = artifacts.contract
        return LoadedDeployment(deployment, artifacts, pipeline, contract, breakers, proof, budgets, observed)

    def _refuse_ledgers(self, deployment: Deployment) -> None:
        """Raises PolicyError for ledgers that this process cannot use."""
        problems = [
            deployment.problem(("guards", i, "ledger"), what)
            for i, guard in enumerate(deployment.policy.guards)
            if isinstance(guard, AnyBudget) and guard.ledger is not None
            if (what := self.budgets.problem(guard.ledger))
        ]
        if problems:
            raise PolicyError(problems)

    def _queues(self, policy: Policy) -> tuple[Brownout, Batcher]:
        """Where rows wait: those that step down for want of room, and all others."""
        most, waiting = policy.serving.max_batch_rows, policy.serving.max_queued_rows
        size, below_size = BatchSize(most), BatchSize(most)
        limit, below_limit = RowLimit(policy.deadline_s, size), RowLimit(policy.deadline_s, below_size)
        below = Batcher(self._answer_stepped_down, self.withdraw, below_limit, below_size, waiting)
        brownout = Brownout(limit, below, self._fallback_answers)
        return brownout, Batcher(self._answer, self.withdraw, limit, size, waiting, brownout.step_down)

    def start(self) -> None:
        """Starts what runs in the background, on the event loop that serves: the audit log, budgets, ..."""
        loop = asyncio.get_running_loop()
        _log_holes(self.loaded)
        self.budgets.follow(self.loaded.budgets, 0.0)
        self._tasks = [
            loop.create_task(self.audit.run()),
            loop.create_task(watch_models(lambda: self.loaded.breakers)),
            loop.create_task(enforce_when_due(self.enforce_due)),
            loop.create_task(change_in_thread(self._running.make)),
        ]
        self._keeping = loop.create_task(self._keep_version())
        if isinstance(self.review, QueuedReview):
            self._tasks.append(loop.create_task(self.review.sweep()))

    def decide(self, batch: Batch, priority: int = 1) -> Coroutine[Any, Any, list[Decision]]:
        """One decision a row, in order, by the rows' deadlines; rows of other requests share its passes.

        The rows are charged at once. Those that a budget refuses wait for nothing.

        One pipeline decides all of them, also if a reload comes meanwhile: that of the batch, if it has one,
        else the one in force.

        Args:    priority: 1 is the highest and the default; lower ones wait behind.
        """
        if batch.pipeline is None:
            batch.pipeline = self.loaded.pipeline
        pipeline = batch.pipeline
        admission = admit(pipeline.budgets, batch, pipeline.policy)
        if admission is None:
            deciding = self.batcher.decide(batch, priority)
        else:
            deciding = self._decide_admitted(admission, priority)
        return self._settled(batch, deciding) if pipeline.settles else deciding

    def refused_stopped(self, id_: str) -> Decision | None:
        """The decision on a request to a model that is stopped, whose body is not read; else None."""
        return Decision(id_, STOPPED) if self.stops.why else None

    def refused_unread(self, id_: str, charges: Charges, policy: str) -> Decision | None:
        """The decision on a request of which a budget refuses the first row; None if its body is read.

        policy: the tag of the policy whose budgets these are.
        """
        refused = refused_unread(charges, id_, policy)
        if refused is not None and isinstance(refused.findings, Findings):
            self.telemetry.add_pass(refused.findings.trail)
        return refused

    async def _decide_admitted(self, admission: Admission, priority: int) -> list[Decision]:
        self.telemetry.add_pass(admission.trail)
        admitted = admission.admitted
        decided = iter(() if admitted is None else await self.batcher.decide(admitted, priority))
        return [next(decided) if refused is None else refused for refused in admission.decisions]

    async def _settled(self, batch: Batch, deciding: Coroutine[Any, Any, list[Decision]]) -> list[Decision]:
        """The decisions, once the budgets know of them; or that the caller has given up."""
        decisions = None
        try:
            decisions = await deciding
        finally:
            settle(batch, decisions)
        return decisions

    async def _answer(self, batch: Batch) -> BatchResult:
        assert batch.pipeline is not None, "decide sets it"
        return await self._answer_by(batch.pipeline, batch)

    async def _answer_stepped_down(self, batch: Batch) -> BatchResult:
        assert batch.pipeline is not None, "decide sets it"
        return await self._answer_by(stepped_down(batch.pipeline), batch)

    async def _answer_by(self, pipeline: Pipeline, batch: Batch) -> BatchResult:
        if self.stops.why:
            return BatchResult(all_stopped(batch.ids))
        result = await pipeline.answer(batch)
        self.telemetry.add_pass(result.trail)
        self.statistics.executions += 1
        return result

    def _fallback_answers(self) -> bool:
        """Whether any rung but the first may be asked."""
        breakers, rungs = self.loaded.breakers, self.loaded.pipeline.rungs[1:]
        return any(breakers[rung.name].state is BreakerState.CLOSED for rung in rungs)

    def withdraw(self, ids: Sequence[str]) -> None:
        """Takes rows out of the review queue whose callers were not told that they are there."""
        if isinstance(self.review, QueuedReview):
            self.review.withdraw(ids)

    def withhold_stopped(self, decisions: list[Decision]) -> list[Decision]:
        """The decisions that may leave now, with refusals in place of the others (`withhold.py`).

        Refused rows are taken out of the review queue. To be asked last before a reply is written.
        """
        leaving = withhold(decisions, self.stops)
        if leaving is not decisions:
            still = set(deferred_ids(leaving))
            self.withdraw([id_ for id_ in deferred_ids(decisions) if id_ not in still])
        return leaving

    def record(self, record: RequestRecord) -> None:
        """Records a judged request for the audit log and telemetry; never blocks."""
        self.audit.take(record)

    async def reload(self) -> bool:
        """Reads the folder again; whether anything changed. Loads in a thread, and serves meanwhile.

        One at a time. Raises PolicyError or ArtifactError, with the old pipeline still in place.
        """
        try:
            changed = self._swap(await in_own_thread(self._load_again))
        except Exception as error:
            self.reloads.record_failure(error, time.time())
            raise
        self.reloads.record_success()
        if changed:
            await self._keep_version()
        return changed

    async def _keep_version(self) -> None:
        """Keeps the files of the policy in force, so that it can be restored."""
        at_s = self._now().timestamp()
        await in_own_thread(partial(keep_version, self.folder, self.state, self.loaded.tag, at_s))

    def _load_again(self) -> LoadedDeployment:
        """What is to be put in force. Blocks."""
        deployment = self.read_folder.read()
        if problems := list(needs_restart(self.loaded.policy, deployment, self._alone)):
            raise PolicyError(problems)
        loaded = self._load(deployment)
        try:
            self.read_folder.refuse_if_changed()
        except PolicyError:
            loaded.artifacts.close()
            raise
        return loaded

    def _swap(self, loaded: LoadedDeployment) -> bool:
        old = self.loaded
        if loaded.tag == old.tag:
            loaded.artifacts.close()
            return False
        _isolate_stopped(loaded.breakers, self.stops)  # an operator may act during a reload
        self.loaded = loaded
        self._retired.append(old.artifacts)
        self._apply_limits(loaded.policy)
        self.budgets.follow(loaded.budgets, 2 * old.policy.deadline_s)
        log.info("policy %s replaced by %s", old.tag, loaded.tag)
        _log_holes(loaded)
        asyncio.get_running_loop().call_later(2 * old.policy.deadline_s, self._retire, old.artifacts)
        return True

    def enforce_due(self) -> float:
        """Enforces the guards whose `observe` has ended; in how many seconds that is to be asked again."""
        now, before = self._now(), self.loaded
        self.loaded = enforced_when_due(before, now)
        if ended := before.observed - self.loaded.observed:
            log.info("policy %s now enforces %s", before.tag, ", ".join(sorted(ended)))
        return seconds_to_next_end(self.loaded, now)

    def _retire(self, artifacts: Artifacts) -> None:
        """Closes models that a reload replaced, once no row can use them any more."""
        self._retired.remove(artifacts)
        artifacts.close()

    def _apply_limits(self, policy: Policy) -> None:
        """Applies the limits of the policy in force to the state that outlives a pipeline."""
        for batcher in (self.batcher, self.brownout.below):
            batcher.size.most = policy.serving.max_batch_rows
            batcher.max_queued_rows = policy.serving.max_queued_rows
            batcher.limit.deadline_s = policy.deadline_s
        self._log.file.keep_bytes = policy.serving.max_audit_bytes
        if self._alone:
            self.callers.anonymous_loopback = policy.serving.anonymous == "loopback"
            self.in_flight.limit = policy.serving.max_in_flight
            self.in_flight.limit_per_caller = policy.serving.max_in_flight_per_caller
        if isinstance(self.review, QueuedReview) and policy.review is not None:
            self.review.store.capacity = policy.review.capacity
            self.review.store.quotas = policy.review.quotas
            self.review.expire_after_s = policy.review.expire_after_s

    async def healthy(self) -> bool:
        """Whether no model is lost, and one canary row is decided within the deadline.

        That charges no budget and opens no review.
        """
        loaded = self.loaded
        if self.lost:
            return False
        on_canary = {guard.name for guard in loaded.policy.guards if guard.on_canary}
        guards = tuple(guard for guard in loaded.pipeline.guards if guard.name in on_canary)
        pipeline = replace(loaded.pipeline, guards=guards, review=None)
        now_s = asyncio.get_running_loop().time()
        deadline_s = now_s + loaded.policy.deadline_s
        canary = Batch(("canary",), ("canary",), loaded.artifacts.kept.first(1), (deadline_s,))
        decisions: Sequence[Decision] = await pipeline.decide(canary)
        return len(decisions) == 1 and asyncio.get_running_loop().time() <= deadline_s

    async def close(self) -> None:
        """Finishes accepted rows, writes buffered records, ends the threads."""
        for batcher in (self.batcher, self.brownout.below):
            await batcher.drain()
        await self.budgets.close()
        if isinstance(self.review, QueuedReview):
            await self.review.finish(WITHDRAW_WITHIN_S)
        if self._keeping is not None:
            await asyncio.gather(self._keeping, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.audit.drain()
        if not self.audit.abandoned:
            await change_in_thread(self._running.remove)
        await in_own_thread(self.telemetry.close)
        for artifacts in (*self._retired, self.loaded.artifacts):
            artifacts.close()  # closing twice does nothing
            await artifacts.closed()
        if isinstance(self.review, QueuedReview):
            self.review.store.close()


def _log_holes(loaded: LoadedDeployment) -> None:
    """What `gateway check` refuses is served, as the operator wants it, and named in the log."""
    for problem in loaded.proof.problems:
        log.warning("not proven: %s", problem)


def _isolate_stopped(breakers: Mapping[str, Breaker], stops: ModelStops) -> None:
    """Takes the models of stopped rungs out of service, and puts those of the others back."""
    for rung, breaker in breakers.items():
        if stops.has(rung):
            breaker.isolate()
        else:
            breaker.restore()
