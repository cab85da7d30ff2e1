"""What a gateway gets from its process: a replica's name, callers, limits, a place for what it writes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from fallbacks.review.open_store import open_store
from fallbacks.review.store import StoreError
from fallbacks.worker import Worker
from gateway.access.callers import Callers
from gateway.access.in_flight import InFlight
from gateway.core.errors import PolicyError, Problem
from gateway.deployment.deployment import VAR, Deployment
from gateway.ledger.ledgers import Ledgers
from gateway.policy.observation import utc_now
from gateway.private_files import make_private_folder
from gateway.serving.latch import Latch
from gateway.serving.latch_file import LatchFile
from gateway.serving.review import QueuedReview

T = TypeVar("T")


def new_replica_name() -> str:
    """A name for this process among the replicas: its process id and random digits."""
    return f"{os.getpid()}-{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """What a gateway gets from its process.

    state: the folder for what the gateway writes; None: `var` of the deployment. callers: those who may call
    it; in_flight, latch, ledgers: shared with other deployments of the process. alone: whether it has no
    other; only then a reload may change what belongs to the process. now: the system's clock, in UTC.
    """

    replica: str
    state: Path | None
    callers: Callers
    in_flight: InFlight
    latch: Latch
    ledgers: Ledgers
    alone: bool
    now: Callable[[], datetime] = utc_now

    @classmethod
    def of(cls, deployment: Deployment, state: Path | None = None) -> Host:
        """The host of a deployment that is alone in its process, which may become a replica under Ray."""
        serving = deployment.policy.serving
        callers = Callers(state or deployment.var, anonymous_loopback=serving.anonymous == "loopback")
        in_flight = InFlight(serving.max_in_flight, serving.max_in_flight_per_caller)
        latch = Latch(LatchFile.of(deployment.folder, state))
        ledgers = Ledgers(state or deployment.var, serving.replicas, on_ray=True)
        return cls(new_replica_name(), state, callers, in_flight, latch, ledgers, alone=True)


def make_state_folder(folder: Path) -> None:
    """Makes a folder for what a gateway writes, or closes it to other users. Raises PolicyError."""
    try:
        make_private_folder(folder)
    except OSError as error:
        what = f"cannot hold what a gateway writes (--state-dir names another): {error.strerror or error}"
        raise PolicyError([Problem("", what, str(folder))]) from error


async def in_own_thread(work: Callable[[], T]) -> T:
    """What blocking work returns, done in a thread that ends with it."""
    worker = Worker("loading")
    try:
        return await worker.call(work)
    finally:
        worker.close(0.0)


def _store_url(deployment: Deployment, state: Path | None) -> str:
    """Where the review queue is: `var/...` of the policy lies in the folder for state, if there is one."""
    assert deployment.policy.review is not None
    url = deployment.policy.review.store
    prefix = f"sqlite:///{VAR}/"
    if state is None or not url.startswith(prefix):
        return url
    return f"sqlite:///{state.resolve() / url.removeprefix(prefix)}"


def open_review(deployment: Deployment, state: Path | None) -> QueuedReview | None:
    """The review queue of a deployment, if it has one. Raises PolicyError if it cannot be opened."""
    policy = deployment.policy.review
    if policy is None:
        return None
    try:
        url = _store_url(deployment, state)
        store = open_store(url, deployment.folder, capacity=policy.capacity, quotas=policy.quotas)
    except StoreError as error:
        raise PolicyError([deployment.problem(("review", "store"), str(error))]) from error
    return QueuedReview(store, policy.expire_after_s)
