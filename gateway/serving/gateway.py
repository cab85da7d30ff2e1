"""One replica's gateway: a compiled pipeline, the state that outlives it, and the swap on reload.

Every protocol calls `decide`. `reload` builds and tries the new pipeline first and then swaps one
reference: a policy that does not compile leaves the old pipeline exactly as it was, and says why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fallbacks.breaker import Breaker, BreakerState
from gateway.core.assessment import Findings
from gateway.core.batch import Batch
from gateway.core.batching import Batcher
from gateway.core.budget import Admission, Charges, admit, refused_unread
from gateway.core.decision import Decision
from gateway.core.errors import ArtifactError, PolicyError
from gateway.core.pipeline import BatchResult, Pipeline, Review
from gateway.core.record import RequestRecord
from gateway.deployment.artifacts import Artifacts, load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.deployment.deployment import Deployment
from gateway.deployment.signature import check_signature
from gateway.policy.schema import Policy, RoundedTier, TopTier
from gateway.protocol import disclosure
from gateway.protocol.contract import Contract
from gateway.protocol.disclosure import Tier
from gateway.protocol.statistics import Statistics
from gateway.serving.agreement import needs_restart
from gateway.serving.host import Host, in_own_thread, make_state_folder, open_review
from gateway.serving.isolation import IsolationFile
from gateway.serving.model_watch import watch_models
from gateway.serving.review import NoReview, QueuedReview
from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.metrics import Telemetry

WITHDRAW_WITHIN_S = 2.0
"""How long the end of a gateway waits until rows are withdrawn from a review queue that does not answer."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedDeployment:
    """One policy with its models and guards, compiled. A reload replaces it as a whole."""

    deployment: Deployment
    artifacts: Artifacts
    pipeline: Pipeline
    contract: Contract
    breakers: dict[str, Breaker]
    _tiers: dict[str, Tier] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        return self.deployment.policy

    @property
    def tag(self) -> str:
        """The policy in force as callers see it: name@version#hash."""
        return self.artifacts.tag

    def tier(self, name: str) -> Tier:
        """How much a caller of this tier may see; two digits where the policy does not name the tier.

        Tiers are of the scores of classes. A regressor's number and its interval are the answer itself, and a
        rounded interval would not keep its promise; of opaque tensors nothing is known.
        """
        tier = self._tiers.get(name)
        if tier is None:  # keys can be made of the policy's tiers alone, so they are few
            tier = self._tiers[name] = self._tier(name)
        return tier

    def _tier(self, name: str) -> Tier:
        if self.policy.task != "classification":
            return disclosure.Full()
        match self.policy.disclosure.get(name):
            case "full":
                return disclosure.Full()
            case "label":
                return disclosure.Label()
            case RoundedTier(rounded=digits):
                return disclosure.Rounded(digits)
            case TopTier(top=k):
                return disclosure.Top(k)
            case None:
                return disclosure.Rounded(2)


class Gateway:
    """Open one with `Gateway.open`; `start` it on the event loop that will serve; `close` it at the end.

    retired: whether it has been unloaded; it then judges no further request.
    """

    def __init__(self, deployment: Deployment, review: Review, host: Host) -> None:
        policy = deployment.policy
        self.folder = deployment.folder
        self.state = host.state or deployment.var
        self._isolation = IsolationFile(self.state)
        self.replica = host.replica
        self.started_s = time.time()
        self.retired = False
        self.callers = host.callers
        self.in_flight = host.in_flight
        self.review = review
        self._alone = host.alone
        self.loaded = self._load(deployment)
        self.telemetry = Telemetry(policy.name, self.replica)
        path = self.state / f"decisions-{self.replica}.jsonl"
        self.statistics = Statistics()
        serving = policy.serving
        self._log = JsonLinesSink(path, keep_bytes=serving.max_audit_bytes, siblings="decisions-*.jsonl")
        self.audit = Audit([self._log, self.telemetry])
        self.batcher = Batcher(
            self._answer,
            self.withdraw,
            max_batch_rows=serving.max_batch_rows,
            max_queued_rows=serving.max_queued_rows,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._retired: list[Artifacts] = []

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

    def _load(self, deployment: Deployment) -> LoadedDeployment:
        check_signature(deployment, os.environ)
        isolated = self._isolation.rungs()
        policy, artifacts = deployment.policy, load_artifacts(deployment, self.state)
        breakers: dict[str, Breaker] = {}
        try:
            pipeline = compile_policy(policy, artifacts, Stores(self.review, self.callers.rate_of, breakers))
        except ArtifactError:
            artifacts.close()
            raise
        for rung in isolated & breakers.keys():
            breakers[rung].isolate()
        return LoadedDeployment(deployment, artifacts, pipeline, artifacts.contract, breakers)

    def start(self) -> None:
        """Starts writing the audit log and sweeping the review store, on the event loop that serves."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.audit.run()),
            loop.create_task(watch_models(lambda: self.loaded.breakers)),
        ]
        if isinstance(self.review, QueuedReview):
            self._tasks.append(loop.create_task(self.review.sweep()))

    def decide(self, batch: Batch, priority: int = 1) -> Coroutine[Any, Any, list[Decision]]:
        """One decision a row, in order, by the rows' deadlines; rows of other requests share its passes.

        The rows are charged at once. Those that a budget refuses wait for nothing.

        Args:    priority: 1 is the highest and the default; lower ones wait behind.
        """
        pipeline = self.loaded.pipeline
        admission = admit(pipeline.budgets, batch, pipeline.policy)
        if admission is None:
            return self.batcher.decide(batch, priority)
        return self._decide_admitted(admission, priority)

    def refused_unread(self, id_: str, charges: Charges) -> Decision | None:
        """The decision on a request of which a budget refuses the first row; None if its body is read."""
        refused = refused_unread(charges, id_, self.loaded.pipeline.policy)
        if refused is not None and isinstance(refused.findings, Findings):
            self.telemetry.add_pass(refused.findings.trail)
        return refused

    async def _decide_admitted(self, admission: Admission, priority: int) -> list[Decision]:
        self.telemetry.add_pass(admission.trail)
        admitted = admission.admitted
        decided = iter(() if admitted is None else await self.batcher.decide(admitted, priority))
        return [next(decided) if refused is None else refused for refused in admission.decisions]

    async def _answer(self, batch: Batch) -> BatchResult:
        result = await self.loaded.pipeline.answer(batch)  # looked up now: a reload takes effect at once
        self.telemetry.add_pass(result.trail)
        self.statistics.executions += 1
        return result

    def withdraw(self, ids: Sequence[str]) -> None:
        """Takes rows out of the review queue whose callers were not told that they are there."""
        if isinstance(self.review, QueuedReview):
            self.review.withdraw(ids)

    def record(self, record: RequestRecord) -> None:
        """Records a judged request for the audit log and telemetry; never blocks."""
        self.audit.take(record)

    async def set_isolation(self, rung: str, *, isolated: bool) -> BreakerState:
        """Takes a rung's model out of service until it is restored, over restarts too; or restores it.

        The state of its breaker after that. Raises KeyError for an unknown rung; ArtifactError or OSError
        where the file of isolated rungs cannot be written: a model is then isolated in this process alone,
        and one that was to be restored stays isolated.
        """
        breaker = self.loaded.breakers[rung]
        if isolated:
            breaker.isolate()
        await in_own_thread(partial(self._isolation.put, rung, isolated=isolated))
        if (latest := self.loaded.breakers.get(rung)) is not None:  # a reload may have replaced it
            breaker = latest
        _put_isolation(breaker, isolated)
        return breaker.state

    async def reload(self) -> bool:
        """Reads the folder again; whether anything changed. Loads in a thread, and serves meanwhile.

        One at a time. Raises PolicyError or ArtifactError, with the old pipeline still in place.
        """
        return self._swap(await in_own_thread(self._load_again))

    def _load_again(self) -> LoadedDeployment:
        """What is to be put in force. Blocks."""
        deployment = Deployment.read(self.folder)
        if problems := list(needs_restart(self.loaded.policy, deployment, self._alone)):
            raise PolicyError(problems)
        return self._load(deployment)

    def _swap(self, loaded: LoadedDeployment) -> bool:
        old = self.loaded
        if loaded.tag == old.tag:
            loaded.artifacts.close()
            return False
        for name in old.breakers.keys() & loaded.breakers.keys():  # an operator may act during a reload
            _put_isolation(loaded.breakers[name], old.breakers[name].state is BreakerState.ISOLATED)
        self.loaded = loaded
        self._retired.append(old.artifacts)
        self._apply_limits(loaded.policy)
        log.info("policy %s replaced by %s", old.tag, loaded.tag)
        asyncio.get_running_loop().call_later(2 * old.policy.deadline_s, self._retire, old.artifacts)
        return True

    def _retire(self, artifacts: Artifacts) -> None:
        """Closes models that a reload replaced, once no row can use them any more."""
        self._retired.remove(artifacts)
        artifacts.close()

    def _apply_limits(self, policy: Policy) -> None:
        """Applies the limits of the policy in force to the state that outlives a pipeline."""
        self.batcher.max_batch_rows = policy.serving.max_batch_rows
        self.batcher.max_queued_rows = policy.serving.max_queued_rows
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
        pipeline = replace(loaded.pipeline, guards=guards, review=NoReview())
        now_s = asyncio.get_running_loop().time()
        deadline_s = now_s + loaded.policy.deadline_s
        canary = Batch(("canary",), ("canary",), loaded.artifacts.kept.first(1), (deadline_s,))
        decisions: Sequence[Decision] = await pipeline.decide(canary)
        return len(decisions) == 1 and asyncio.get_running_loop().time() <= deadline_s

    async def close(self) -> None:
        """Finishes accepted rows, writes buffered records, ends the threads."""
        await self.batcher.drain()
        if isinstance(self.review, QueuedReview):
            await self.review.finish(WITHDRAW_WITHIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.audit.drain()
        await in_own_thread(self.telemetry.close)
        for artifacts in (*self._retired, self.loaded.artifacts):
            artifacts.close()  # closing twice does nothing
            await artifacts.closed()
        if isinstance(self.review, QueuedReview):
            self.review.store.close()


def _put_isolation(breaker: Breaker, isolated: bool) -> None:
    if isolated:
        breaker.isolate()
    else:
        breaker.restore()
