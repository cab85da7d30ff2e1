"""One replica's gateway: a compiled pipeline, everything that outlives it, and the swap on reload.

`decide` is what every protocol calls. `reload` builds and tries the new pipeline first and then swaps one
reference: a policy that does not compile leaves the old pipeline exactly as it was, and says why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fallbacks.breaker import Breaker, State
from fallbacks.review.queue import ReviewQueue, StoreError
from gateway.access.callers import Callers
from gateway.access.in_flight import InFlight
from gateway.core.batch import Batch
from gateway.core.batching import Batcher
from gateway.core.decision import Decision
from gateway.core.errors import ArtifactError, PolicyError, Problem
from gateway.core.pipeline import Ended, Pipeline, Review
from gateway.core.record import RequestRecord
from gateway.deployment.artifacts import Artifacts, load_artifacts
from gateway.deployment.compile import Stores, compile_policy
from gateway.policy.schema import Policy, RoundedTier, TopTier, load_policy, locate
from gateway.protocol import disclosure
from gateway.protocol.contract import Contract
from gateway.protocol.disclosure import Tier
from gateway.protocol.statistics import Statistics
from gateway.serving.review import NoReview, QueuedReview
from gateway.telemetry.audit import Audit
from gateway.telemetry.json_lines import JsonLinesSink
from gateway.telemetry.metrics import Telemetry

VAR = "var"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One policy with all it names, compiled. Swapped as a whole, never changed."""

    policy: Policy
    artifacts: Artifacts
    pipeline: Pipeline
    contract: Contract
    breakers: dict[str, Breaker]

    @property
    def tag(self) -> str:
        return self.artifacts.tag

    def tier(self, name: str) -> Tier:
        """How much a caller of this tier may see; two digits where the policy does not say."""
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
    """Open one with `Gateway.open`; `start` it on the event loop that will serve; `close` it at the end."""

    def __init__(self, folder: Path, policy: Policy, review: Review, callers: Callers) -> None:
        self.folder = folder
        self.replica = f"{os.getpid()}-{secrets.token_hex(2)}"
        self.started_s = time.time()
        self.callers = callers
        self.review = review
        self.loaded = self._load(policy)
        self.telemetry = Telemetry(policy.name, self.replica)
        path = folder / VAR / f"decisions-{self.replica}.jsonl"
        self.statistics = Statistics(lambda: self.loaded.pipeline.models)
        self.audit = Audit([JsonLinesSink(path), self.telemetry])
        serving = policy.serving
        self.in_flight = InFlight(serving.max_in_flight, serving.max_in_flight_per_caller)
        self.batcher = Batcher(
            self._answer,
            max_batch_rows=serving.max_batch_rows,
            max_queued_rows=serving.max_queued_rows,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._retired: list[Artifacts] = []

    @classmethod
    def open(cls, folder: Path) -> Gateway:
        """Loads, verifies and compiles a deployment. Raises PolicyError or ArtifactError; blocks."""
        policy = load_policy(folder)
        callers = Callers(folder / VAR, anonymous_loopback=policy.serving.anonymous == "loopback")
        return cls(folder, policy, _review(folder, policy), callers)

    def _load(self, policy: Policy) -> Loaded:
        artifacts = load_artifacts(self.folder, policy)
        breakers: dict[str, Breaker] = {}
        try:
            pipeline = compile_policy(policy, artifacts, Stores(self.review, self.callers.rate_of, breakers))
        except ArtifactError:
            artifacts.close()
            raise
        return Loaded(policy, artifacts, pipeline, artifacts.contract, breakers)

    def start(self) -> None:
        """Begins to write the audit log and to tend the review queue, on the event loop that serves."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.audit.run())]
        if isinstance(self.review, QueuedReview):
            self._tasks.append(loop.create_task(self.review.tend()))

    async def decide(self, batch: Batch, priority: int = 1) -> list[Decision]:
        """One decision a row, in order, by the rows' deadlines; rows of other requests share its passes.

        Args:    priority: 1 is the highest, and what is not said; others wait behind.
        """
        return await self.batcher.decide(batch, priority)

    async def _answer(self, batch: Batch) -> Ended:
        ended = await self.loaded.pipeline.answer(batch)  # looked up now: a reload takes effect at once
        self.telemetry.add_pass(ended.trail)
        self.statistics.executions += 1
        return ended

    def record(self, record: RequestRecord) -> None:
        """Takes a finished request for the audit log, telemetry and statistics; never blocks."""
        self.audit.take(record)
        self.statistics.ended(record)

    def reload(self) -> bool:
        """Reads the folder again; whether anything changed.

        Raises PolicyError or ArtifactError, with the old pipeline still in place. Blocks while it loads.
        """
        policy = load_policy(self.folder)
        old = self.loaded
        if problems := list(_needs_restart(self.folder, old.policy, policy)):
            raise PolicyError(problems)
        loaded = self._load(policy)
        if loaded.tag == old.tag:
            loaded.artifacts.close()
            return False
        for name, breaker in old.breakers.items():
            if breaker.state is State.ISOLATED and name in loaded.breakers:
                loaded.breakers[name].isolate()  # what an operator took out stays out
        self.loaded = loaded
        self._retired.append(old.artifacts)
        self._apply(policy)
        log.info("policy %s replaced by %s", old.tag, loaded.tag)
        asyncio.get_running_loop().call_later(2 * old.policy.deadline_s, self._retire, old.artifacts)
        return True

    def _retire(self, artifacts: Artifacts) -> None:
        """Ends models that a reload replaced, once no row can need them any more."""
        self._retired.remove(artifacts)
        artifacts.close()

    def _apply(self, policy: Policy) -> None:
        """What outlives a pipeline takes its limits from the policy in force."""
        self.callers.anonymous_loopback = policy.serving.anonymous == "loopback"
        self.batcher.max_batch_rows = policy.serving.max_batch_rows
        self.batcher.max_queued_rows = policy.serving.max_queued_rows
        self.in_flight.limit = policy.serving.max_in_flight
        self.in_flight.limit_per_caller = policy.serving.max_in_flight_per_caller
        if isinstance(self.review, QueuedReview) and policy.review is not None:
            self.review.queue.capacity = policy.review.capacity
            self.review.expire_after_s = policy.review.expire_after_s

    async def healthy(self) -> bool:
        """Whether one canary row is decided within the deadline. It charges no budget and asks no person."""
        loaded = self.loaded
        primary = next(iter(loaded.artifacts.models.values()))
        guards = tuple(guard for guard in loaded.pipeline.guards if guard.name in loaded.artifacts.fitted.ood)
        pipeline = replace(loaded.pipeline, guards=guards, review=NoReview())
        now_s = asyncio.get_running_loop().time()
        deadline_s = now_s + loaded.policy.deadline_s
        canary = Batch(("canary",), ("canary",), primary.canary(1), (deadline_s,))
        decisions: Sequence[Decision] = await pipeline.decide(canary)
        return len(decisions) == 1 and asyncio.get_running_loop().time() <= deadline_s

    async def close(self) -> None:
        """Finishes what was taken, writes what was recorded, ends the threads."""
        await self.batcher.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.audit.drain()
        self.telemetry.close()
        for artifacts in (*self._retired, self.loaded.artifacts):
            artifacts.close()  # again where a timer is still to come: closing twice does nothing
            await artifacts.closed()
        if isinstance(self.review, QueuedReview):
            self.review.queue.close()


def _needs_restart(folder: Path, old: Policy, new: Policy) -> Iterator[Problem]:
    """What is bound once, when a replica starts."""
    stores = [policy.review and policy.review.store for policy in (old, new)]
    if stores[0] != stores[1]:
        yield locate(folder, ("review", "store"), "a change of the review store needs a restart")
    for field in ("replicas", "trusted_proxies", "base_path"):
        if getattr(old.serving, field) != getattr(new.serving, field):
            yield locate(folder, ("serving", field), f"a change of {field} needs a restart")
    if old.name != new.name:
        yield locate(folder, ("name",), "a change of the name needs a restart")


def _review(folder: Path, policy: Policy) -> Review:
    if policy.review is None:
        return NoReview()
    path = folder / policy.review.store.removeprefix("sqlite:///")
    try:
        queue = ReviewQueue.open(f"sqlite:///{path}", capacity=policy.review.capacity)
    except StoreError as error:
        raise PolicyError([locate(folder, ("review", "store"), str(error))]) from error
    return QueuedReview(queue, policy.review.expire_after_s)
